"""Settings that hold for every test."""

from hypothesis import settings

# The same examples every time: a failure that comes and goes with the machine's load or with luck helps nobody.
settings.register_profile("tlbcore", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("tlbcore")
