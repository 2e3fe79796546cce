"""Sphinx configuration. Nothing is imported from tlbcore, so the documentation builds without compiling it."""

import tomllib
from pathlib import Path

with (Path(__file__).parent.parent / "Cargo.toml").open("rb") as _manifest:
    release = tomllib.load(_manifest)["workspace"]["package"]["version"]

project = "tlbcore"
author = "The tlbcore developers"
project_copyright = author
version = release

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"tlbcore {release}"
