"""Sphinx configuration. Nothing is imported from tlbcore, so the documentation builds without compiling it."""

import re
import sys
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(Path(__file__).parent))

import api_reference  # noqa: E402 - beside this file

with (ROOT / "Cargo.toml").open("rb") as _manifest:
    _package = tomllib.load(_manifest)["workspace"]["package"]

project = "tlbcore"
author = "The tlbcore developers"
project_copyright = author
version = release = _package["version"]

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"tlbcore {release}"


def begin_with_readme(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the README before the index; its links point from the repository's root, so they are turned."""
    if docname == "index":
        readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")

        def turn(link: re.Match[str]) -> str:
            target = link[1]
            inside = (ROOT / target.partition("#")[0]).exists()
            return f"]({_package['repository']}/blob/main/{target})" if inside else link[0]

        source[0] = re.sub(r"\]\(([^):#]+(?:#[^)]*)?)\)", turn, readme) + "\n" + source[0]


def turn_links_that_lead_out(app: Sphinx, docname: str, source: list[str]) -> None:
    """Links to files of the repository that are no pages of the documentation lead to the repository."""
    folder = (Path(app.srcdir) / docname).parent

    def turn(link: re.Match[str]) -> str:
        target, hash_, place = link[1].partition("#")
        found = (folder / target).resolve()
        if not found.exists() or found.is_relative_to(app.srcdir):
            return link[0]
        return f"]({_package['repository']}/blob/main/{found.relative_to(ROOT).as_posix()}{hash_}{place})"

    source[0] = re.sub(r"\]\((\.\./[^):]+)\)", turn, source[0])


def fill_api_reference(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Put what the sources say below the head of the API reference."""
    if docname == "api":
        source[0] += api_reference.reference()


def setup(app: Sphinx) -> None:
    """Register what this file adds to Sphinx."""
    app.connect("source-read", begin_with_readme)
    app.connect("source-read", turn_links_that_lead_out)
    app.connect("source-read", fill_api_reference)
