"""A profile as one page of HTML: everything is in the file, nothing is asked of the network.

>>> from tlbcore import recordings
>>> from tlbcore.profile import profile
>>> page(profile(recordings.load("data/recordings/micro.perf.txt.zst"))).startswith("<!doctype html>")
True
"""

from __future__ import annotations

import json
from importlib.resources import files
from os import PathLike
from string import Template
from typing import TYPE_CHECKING, Final

from tlbcore import _core
from tlbcore.given import wrong_kind
from tlbcore.profile import Profile
from tlbcore.report.page import agreement, flushing, others, useless
from tlbcore.report.page.html import Raw, text
from tlbcore.report.page.patterns import patterns
from tlbcore.report.page.timeline import lanes
from tlbcore.whole_file import write_text

if TYPE_CHECKING:
    import os

__all__ = ["page", "write_page"]


#: What somebody may have wanted who gave something else than a profile.
_HINTS: Final[dict[type | tuple[type, ...], str]] = {
    (_core.Recording, str, PathLike): "tlbcore.profile.profile(RECORDING) makes one",
}


def page(profile: Profile) -> str:
    """The page.

    Raises:
        InputError: It is no profile.
    """
    if not isinstance(profile, Profile):
        raise wrong_kind("profile", profile, "a Profile", _HINTS)
    timeline = lanes(profile)
    sections = (
        ("time", "Over time", flushing.over_time(profile, timeline)),
        ("causes", "Who caused it", flushing.who_caused(profile)),
        ("interrupted", "Who was interrupted", flushing.who_was_interrupted(profile)),
        ("useless", "What was useless", useless.section(profile)),
        ("others", "Other kernels and machines", others.section(profile)),
        ("agreement", "How far to believe it", agreement.section(profile)),
    )
    links = "".join(f'<li><a href="#{name}">{text(title)}</a></li>' for name, title, _ in sections)
    parts = "".join(f'<section id="{name}"><h2>{text(title)}</h2>{body}</section>' for name, title, body in sections)
    title = f"TLB flushes of {profile.recording.meta['file']}"
    body = (
        f"<header><h1>{text(title)}</h1>{flushing.head(profile)}</header>"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>'
        f"<main>{parts}</main>"
        f"<footer><p>Made by tlbcore {text(_core.__version__)}: <code>tlbcore report {text(profile.recording.meta['file'])}"
        "</code>. This file holds all that it shows, and asks nothing of the network.</p></footer>"
    )
    return fill("page.html", title=title, body=Raw(body), data={"timeline": timeline}, script="timeline.js")


def fill(template: str, *, title: str, body: Raw, data: object, script: str) -> str:
    """A page of this look.

    Args:
        template: The frame, a file of the folder `template`.
        title: Of the window.
        body: HTML.
        data: What the script finds as JSON in the element `data`.
        script: The script, a file of the folder `template`.

    """
    folder = files("tlbcore.report.page").joinpath("template")

    def read(name: str) -> str:
        return folder.joinpath(name).read_text(encoding="utf-8")

    # No text of a recording may end the element that holds the data.
    plain = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return Template(read(template)).substitute(
        version=text(_core.__version__),
        title=text(title),
        style=read("style.css"),
        patterns=patterns(),
        body=body,
        data=plain,
        script=read(script),
    )


def write_page(profile: Profile, path: str | os.PathLike[str]) -> None:
    """Writes the page, whole or not at all.

    Raises:
        InputError: It is no profile.
        OSError: It cannot be written there.

    """
    write_text(path, page(profile))
