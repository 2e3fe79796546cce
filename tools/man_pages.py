"""The man pages and the completions that are installed: ``python tools/man_pages.py`` writes them below ``installed/``.

A page for ``tlbcore`` and one for each command, from the parser itself. ``tests/test_man_pages.py`` holds what stands
there against what comes out. ``installed/data`` is what a wheel puts below the prefix of its environment, where ``man``
and the shells look.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import tlbcore
from tlbcore.cli.completion import SHELLS, script
from tlbcore.cli.describe import CommandText, Option, describe
from tlbcore.cli.main import build_parser

ROOT: Final = Path(__file__).parents[1]
SHARE: Final = ROOT / "installed" / "data" / "share"
COMPLETIONS: Final = {
    "bash": "bash-completion/completions/tlbcore",
    "zsh": "zsh/site-functions/_tlbcore",
    "fish": "fish/vendor_completions.d/tlbcore.fish",
}
STATUS: Final = (("0", "fine"), ("1", "a negative verdict"), ("2", "a usage or input error, told in one line"))


def pages() -> dict[Path, str]:
    """Each file that is installed, and what belongs into it."""
    os.environ["COLUMNS"] = "80"
    top = describe(build_parser())
    found = {SHARE / "man" / "man1" / f"{_title(command)}.1": _page(command, top) for command in (top, *top.commands)}
    return found | {SHARE / COMPLETIONS[shell]: script(shell) for shell in SHELLS}


def _title(command: CommandText) -> str:
    return command.name.replace(" ", "-")


def _page(command: CommandText, top: CommandText) -> str:
    lines = [
        f'.TH {_title(command).upper()} 1 "" "tlbcore {tlbcore.__version__}" "tlbcore"',
        ".SH NAME",
        f"{_title(command)} \\- {_text(command.summary[:1].lower() + command.summary[1:])}",
        ".SH SYNOPSIS",
        *(line for form in _forms(command) for line in (".PP", f".B {_text(form)}")),
    ]
    lines += [".SH DESCRIPTION", *(line for text in command.description for line in (".PP", _text(text)))]
    if command is top:
        lines += [".SH COMMANDS"]
        for below in command.commands:
            lines += [".TP", f"\\fB{_text(_title(below))}\\fR(1)", _text(below.summary)]
    for part in [command, *([] if command is top else command.commands)]:
        heading = "OPTIONS" if part is command else part.name.upper()
        if part.arguments or part.options:
            lines += [
                f'.SH "{heading}"',
                *(line for option in (*part.arguments, *part.options) for line in _item(option)),
            ]
    lines += [".SH EXAMPLES"]
    for example in command.examples:
        lines += [".PP", f"{_text(example.says[:1].upper() + example.says[1:])}:"]
        lines += [".PP", ".RS 4", ".nf", f".B {_text(example.command)}", ".fi", ".RE"]
    lines += [".SH EXIT STATUS"]
    for status, meaning in STATUS:
        lines += [".TP", f".B {status}", meaning]
    others = [top, *top.commands] if command is top else [top]
    lines += [".SH SEE ALSO", ", ".join(f"\\fB{_text(_title(o))}\\fR(1)" for o in others if o is not command)]
    return "\n".join(lines) + "\n"


def _forms(command: CommandText) -> Iterator[str]:
    yield command.usage
    if command.name != "tlbcore":
        yield from (below.usage for below in command.commands)


def _item(option: Option) -> list[str]:
    name = ", ".join(f"\\fB{_text(flag)}\\fR" for flag in option.flags)
    value = f"\\fI{_text(option.metavar)}\\fR" if option.metavar else ""
    return [".TP", " ".join(filter(None, [name, value])), _text(option.help or "")]


def _text(text: str) -> str:
    """Text as roff takes it: hyphens stay hyphens, a leading dot or quote is no request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    for path, content in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(path.relative_to(ROOT))
