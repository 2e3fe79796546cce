"""What is installed is what the sources say: version, build, type information, licences."""

import re
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import entry_points, metadata, version
from pathlib import Path
from typing import Any

import pytest

import tlbcore
from tlbcore import _core

ROOT = Path(__file__).parent.parent
VERSION_LINE = re.compile(r"tlbcore (\S+) \((release|dev-opt|debug) build; ([a-z0-9, -]+)\)\n")


def load_toml(name: str) -> dict[str, Any]:
    with (ROOT / name).open("rb") as file:
        return tomllib.load(file)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_one_version_everywhere() -> None:
    source = load_toml("Cargo.toml")["workspace"]["package"]["version"]
    assert tlbcore.__version__ == _core.__version__ == source
    assert version("tlbcore") == source
    for crate in ("core", "pyext"):
        assert load_toml(f"rust/{crate}/Cargo.toml")["package"]["version"] == {"workspace": True}


def test_the_citation_names_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", text, re.MULTILINE) == [tlbcore.__version__]
    assert re.findall(r"^  - (MIT|Apache-2.0)$", text, re.MULTILINE) == ["MIT", "Apache-2.0"]


@pytest.mark.skipif(
    ROOT / "python" in Path(tlbcore.__file__).parents, reason="the sources are used, nothing is installed"
)
def test_man_pages_and_completions_are_installed() -> None:
    for name in ("man/man1/tlbcore.1", "man/man1/tlbcore-compare.1", "bash-completion/completions/tlbcore"):
        assert (Path(sys.prefix) / "share" / name).is_file(), name


def test_changelog_has_a_section_for_what_comes_or_what_is() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[(Unreleased|{re.escape(tlbcore.__version__)})\]", changelog, re.MULTILINE)


def test_version_of_the_module_and_of_the_script_is_the_same_line() -> None:
    script = Path(sysconfig.get_path("scripts")) / "tlbcore"
    outputs = [run(str(script), "--version"), run(sys.executable, "-m", "tlbcore", "--version")]
    for output in outputs:
        assert (output.returncode, output.stderr) == (0, "")
    assert outputs[0].stdout == outputs[1].stdout
    found = VERSION_LINE.fullmatch(outputs[0].stdout)
    assert found is not None
    assert found.groups() == (tlbcore.__version__, tlbcore.build_profile(), ", ".join(tlbcore.build_features()))


def test_the_script_is_the_declared_entry_point() -> None:
    (script,) = entry_points(group="console_scripts", name="tlbcore")
    assert script.value == load_toml("pyproject.toml")["project"]["scripts"]["tlbcore"]


def test_rust_and_python_agree_on_the_licence() -> None:
    licence = metadata("tlbcore")["License-Expression"]
    assert licence == load_toml("Cargo.toml")["workspace"]["package"]["license"] == "MIT OR Apache-2.0"
    assert set(metadata("tlbcore").get_all("License-File") or []) == {"LICENSE-APACHE", "LICENSE-MIT"}


def test_type_information_is_installed() -> None:
    package = Path(tlbcore.__file__).parent
    assert (package / "py.typed").is_file()
    assert (package / "_core.pyi").is_file()


def test_the_build_is_for_this_kind_of_python() -> None:
    is_free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    assert ("free-threaded" in tlbcore.build_features()) is is_free_threaded
    assert not {"abi3", "free-threaded"} <= set(tlbcore.build_features())


@pytest.mark.skipif("abi3" not in tlbcore.build_features(), reason="a build for one Python version only")
def test_one_file_serves_every_python() -> None:
    assert Path(_core.__file__).name == "_core.abi3.so"


def test_tests_run_with_an_optimised_core() -> None:
    assert tlbcore.build_profile() in {"release", "dev-opt"}


def test_debug_assertions_go_with_the_profile() -> None:
    assert ("debug-assertions" in tlbcore.build_features()) == (tlbcore.build_profile() != "release")
    assert tlbcore.build_features() == sorted(tlbcore.build_features())


def test_debug_build_warns() -> None:
    with pytest.warns(RuntimeWarning, match="unoptimised debug build"):
        tlbcore._warn_if_unoptimised("debug")  # noqa: SLF001  # no debug build at hand


@pytest.mark.parametrize("profile", ["release", "dev-opt"])
def test_optimised_build_does_not_warn(profile: str) -> None:
    tlbcore._warn_if_unoptimised(profile)  # noqa: SLF001  # a warning would be an error here


def test_public_names_exist_and_errors_have_one_base() -> None:
    for name in tlbcore.__all__:
        assert hasattr(tlbcore, name)
    assert issubclass(tlbcore.InputError, tlbcore.TlbcoreError)
    assert issubclass(tlbcore.InputError, ValueError)
    assert issubclass(tlbcore.ProgramError, tlbcore.TlbcoreError)
    assert not issubclass(tlbcore.ProgramError, ValueError)


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL")
def test_import_leaves_the_gil_disabled() -> None:
    program = "import sys, tlbcore; tlbcore.load(sys.argv[1]).column('time_ns'); print(sys._is_gil_enabled())"
    output = run(sys.executable, "-c", program, str(ROOT / "data" / "recordings" / "micro.perf.txt.zst"))
    assert (output.stdout, output.stderr) == ("False\n", "")
