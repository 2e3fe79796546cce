"""Man pages and completions: made from the parser, in step with it, and what their readers take without complaint."""

import gzip
import lzma
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import man_pages
from given_data import RECORDINGS, ROOT
from perf_text import FIRST
from test_caveats import begun
from tlbcore import kernels, recordings
from tlbcore.cli.completion import SHELLS, script
from tlbcore.cli.describe import describe
from tlbcore.cli.main import COMMANDS, build_parser, main
from tlbcore.record import lacks

PAGES = man_pages.pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_is_installed_is_what_comes_out(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path], "run `python tools/man_pages.py`"


def test_nothing_else_is_installed() -> None:
    assert {path for path in man_pages.SHARE.rglob("*") if path.is_file()} == set(PAGES)


def test_every_command_has_a_page_with_every_option() -> None:
    for command in describe(build_parser()).walk():
        page = man_pages.SHARE / "man" / "man1" / f"{'-'.join(command.name.split()[:2])}.1"
        text = PAGES[page].replace("\\-", "-")
        for option in command.options:
            for flag in option.flags:
                assert flag in text
    assert len(PAGES) == 1 + len(COMMANDS) + len(SHELLS)


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff here")
@pytest.mark.parametrize("path", [path for path in PAGES if path.suffix == ".1"], ids=lambda path: path.name)
def test_groff_has_no_complaint(path: Path) -> None:
    command = ["groff", "-man", "-ww", "-z", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


DESCRIBED = describe(build_parser())
EXAMPLES = [example.command for command in (DESCRIBED, *DESCRIBED.commands) for example in command.examples]


def test_every_page_has_a_description_and_examples() -> None:
    for command in (DESCRIBED, *DESCRIBED.commands):
        assert len(command.description) >= 2, "the summary, and what it says beside that"
        assert command.examples
        page = PAGES[man_pages.SHARE / "man" / "man1" / f"{command.name.replace(' ', '-')}.1"].replace("\\-", "-")
        sections = dict(re.findall(r'^\.SH "?(.*?)"?\n((?:(?!\.SH).*\n)*)', page, flags=re.MULTILINE))
        assert list(sections)[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"]
        for paragraph in command.description:
            assert paragraph in sections["DESCRIPTION"].replace("\\&", "")
        for example in command.examples:
            assert f".B {example.command}\n" in sections["EXAMPLES"]


@pytest.fixture(scope="module")
def at_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples name."""
    home = tmp_path_factory.mktemp("home")
    micro = recordings.load(RECORDINGS[3])
    micro.save(home / "app.tlbr")
    text = "".join(f"{line}\n" for line in begun().fault(FIRST, 0x7000).fault(FIRST, 0x9000).lines)
    (home / "perf.txt").write_text(text, encoding="utf-8")
    (home / "perf.txt.gz").write_bytes(gzip.compress(text.encode()))
    (home / "recordings").mkdir()
    micro.save(home / "recordings" / "app.tlbr")
    (home / "questions").symlink_to(ROOT / "litmus" / "dirty-pte")
    (home / "sweep.toml").write_text(
        'recordings = ["app.tlbr"]\nkernels = ["linux-5.10", "linux-6.18"]\n', encoding="utf-8"
    )
    scheme = (
        "from tlbcore import kernels\nfrom tlbcore.schemes import MmuGather\n\n\n"
        'class Mine(MmuGather):\n    """Mine."""\n\n\n'
        'KERNEL = kernels.get("linux-6.18").derive("mine", munmap=Mine())\n'
    )
    (home / "mine.py").write_text(scheme, encoding="utf-8")
    addresses = np.arange(1000, dtype=np.uint64) * 4096
    np.save(home / "app.npy", addresses)
    for name in ("cpu0.raw", "cpu1.raw"):
        addresses.tofile(home / name)
    lackey = "".join(f" L {address:x},8\n" for address in addresses.tolist())
    (home / "app.lackey.xz").write_bytes(lzma.compress(lackey.encode()))
    for name, content in (("app", "exit 0"), ("bin/tlbcore", f'exec {sys.executable} -m tlbcore "$@"')):
        path = home / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{content}\n", encoding="utf-8")
        path.chmod(0o755)
    return home


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize("command", EXAMPLES)
def test_examples_run(command: str, at_home: Path) -> None:
    if "parquet" in command:
        pytest.importorskip("pyarrow")
    for program in ("zcat", "xz"):
        if program in command and shutil.which(program) is None:
            pytest.skip(f"no {program} here")
    is_recording = command.startswith("tlbcore record") and "--check" not in command
    if is_recording and any(lack.stops for lack in lacks()):
        pytest.skip("no perf that may record here")
    # What is written takes other names: the examples after it read what was put there.
    run = command.replace("-o app.tlbr", "-o other.tlbr")
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", run],  # noqa: S607
        cwd=at_home,
        env={**os.environ, "PATH": f"{at_home / 'bin'}:{os.environ['PATH']}", "PYTHONWARNINGS": "error"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    # A race that is found, a hunt that found something and a lack of perf are answers.
    answers = {0, 1} if command.startswith(("tlbcore check", "tlbcore record --check")) else {0}
    assert done.returncode in answers, done.stderr
    assert "error" not in done.stderr


def completed(*words: str) -> list[str]:
    """What bash offers for a command line whose last word is being written."""
    line = " ".join(f"'{word}'" for word in words)
    program = f"{script('bash')}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _tlbcore\n"
    program += 'printf "%s\\n" "${COMPREPLY[@]}"\n'
    done = subprocess.run(["bash", "-u", "-c", program], capture_output=True, text=True, check=False)  # noqa: S607
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["tlbcore", "comp"], ["compare", "completion"]),
        (["tlbcore", "compare", "--ma"], ["--machine"]),
        (["tlbcore", "compare", "x.tlbr", "--kernel", "linux-6.1"], ["linux-6.1", "linux-6.18"]),
        (["tlbcore", "check", "cons"], ["consolidated"]),
        (["tlbcore", "check", "linux-6.18", "--op", "madvise_d"], ["madvise_dontneed"]),
        (["tlbcore", "check", "linux-6.18", "--kind", ""], ["file", "anon"]),
        (["tlbcore", "races", "R09"], ["R09a", "R09b"]),
        (["tlbcore", "kernels", "show", ""], list(kernels.FAMILIES)),
        (["tlbcore", "machines", "show", "apple"], ["apple_m1_p"]),
        (["tlbcore", "schemes", "show", "Lazy"], ["LazyMmu"]),
        (["tlbcore", "compare", "--kernel", "linux-5.10", "some-file"], []),
    ],
    ids=lambda words: " ".join(words[1:]),
)
def test_bash_completes(words: list[str], offered: list[str]) -> None:
    assert completed(*words) == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_reads_its_script(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    done = subprocess.run([shell, "-n"], input=script(shell), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh_takes_the_script_by_eval_too() -> None:
    program = "autoload -Uz compinit && compinit -u -D\n" + script("zsh") + 'print -r -- "$_comps[tlbcore]"\n'
    done = subprocess.run(["zsh", "-f", "-c", program], capture_output=True, text=True, check=False)  # noqa: S607
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "_tlbcore\n")


def test_zsh_takes_no_name_of_a_value_for_a_pattern() -> None:
    specs = [line for line in script("zsh").splitlines() if "OP[" in line or "OP(" in line]
    assert specs
    assert not any("OP[" in line for line in specs)


def test_the_command_prints_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out == script("zsh")
