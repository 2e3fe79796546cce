"""The lab's one exception."""


class LabError(Exception):
    """Something that the lab cannot do, in one line."""
