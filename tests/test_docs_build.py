"""The documentation can be built, without a warning, and without the compiled part."""

import subprocess
import sys
from pathlib import Path

import pytest

from shown_output import ROOT

pytest.importorskip("sphinx", reason="no Sphinx is installed")


@pytest.mark.timeout(240)
def test_the_pages_are_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
    folders = [str(ROOT / "docs"), str(tmp_path / "pages"), "-d", str(tmp_path / "doctrees")]
    done = subprocess.run([*command, *folders], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "pages" / "tutorial.html").is_file()
