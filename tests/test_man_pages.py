"""Man pages and completions: made from the parser, in step with it, and what their readers take without complaint."""

import shutil
import subprocess
from pathlib import Path

import pytest

import man_pages
from tlbcore import kernels
from tlbcore.cli.completion import SHELLS, script
from tlbcore.cli.describe import describe
from tlbcore.cli.main import COMMANDS, build_parser, main

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
