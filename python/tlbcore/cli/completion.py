"""`tlbcore completion`: what a shell needs to complete the command line, made of the parser itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlbcore import kernels, machines, races
from tlbcore.check import INVARIANTS
from tlbcore.cli import OK
from tlbcore.cli.describe import CommandText, Option, describe
from tlbcore.cli.usage_text import tell
from tlbcore.scheme import OPERATIONS
from tlbcore.schemes import SCHEMES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

SHELLS: Final = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    tell(
        parser,
        "A wheel installs the completions below the prefix of its environment. Where a shell does not look there, this does"
        " the same.",
        ('eval "$(tlbcore completion bash)"', "for this shell; in ~/.bashrc for all (zsh: after compinit)"),
        ("tlbcore completion fish > tlbcore.fish", "for fish, whose place is ~/.config/fish/completions"),
    )
    parser.add_argument("shell", choices=SHELLS, help='the shell; for bash and zsh: eval "$(tlbcore completion bash)"')


def run(args: argparse.Namespace) -> int:
    """Print the completion."""
    print(script(args.shell), end="")
    return OK


def script(shell: str) -> str:
    """The completion of the whole command line for a shell."""
    from tlbcore.cli.main import build_parser  # noqa: PLC0415 - main imports the commands

    render: dict[str, Callable[[CommandText], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    return render[shell](describe(build_parser()))


def _names(command: str, option: Option) -> tuple[str, ...]:
    """The values that a user might mean; none: a file, or a number."""
    if option.choices:
        return option.choices
    kinds: dict[str, tuple[str, ...]] = {
        "--kernel": tuple(kernels.FAMILIES),
        "--machine": machines.preset_names(),
        "--op": (*OPERATIONS, "truncate"),
        "--operation": OPERATIONS,
        "--invariant": tuple(INVARIANTS),
        "--mutate": tuple(SCHEMES),
        "--executor": ("threads", "processes", "serial", "dask"),
        "KERNEL": tuple(kernels.FAMILIES),
        "RACE": (*races.RACES, *races.UNCOVERED),
    }
    specs = {"kernels": tuple(kernels.FAMILIES), "machines": machines.preset_names(), "schemes": tuple(SCHEMES)}
    for key in (*option.flags, option.metavar):
        if key in {"SPEC", "NAME"} and (listed := command.split()[1]) in specs:
            return specs[listed]
        if key in kinds:
            return kinds[key]
    return ()


def _words(names: tuple[str, ...]) -> str:
    return " ".join(names)


# --- bash ------------------------------------------------------------------------------------------------------------


def _bash(top: CommandText) -> str:
    """One function; files where it has nothing to offer (`-o default`)."""
    lines = [
        "# Completion of tlbcore for bash: tlbcore completion bash",
        "_tlbcore() {",
        "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} path=tlbcore word",
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        '        case "$path $word" in',
    ]
    lines += [f'            "{command.name}") path="{command.name}" ;;' for command in top.walk() if command is not top]
    lines += ["        esac", "    done", '    case "$path $prev" in']
    for command in top.walk():
        for option in command.options:
            names = _names(command.name, option)
            if option.metavar and names:
                patterns = "|".join(f'"{command.name} {flag}"' for flag in option.flags)
                lines.append(f'        {patterns}) COMPREPLY=($(compgen -W "{_words(names)}" -- "$cur")); return ;;')
            elif option.metavar:
                patterns = "|".join(f'"{command.name} {flag}"' for flag in option.flags)
                lines.append(f"        {patterns}) COMPREPLY=(); return ;;")
    lines += ["    esac", '    case "$path" in']
    for command in top.walk():
        flags = _words(tuple(flag for option in command.options for flag in option.flags))
        first = _words(tuple(below.name.split()[-1] for below in command.commands))
        offered = " ".join(filter(None, [first, *(_words(_names(command.name, a)) for a in command.arguments)]))
        lines += [
            f'        "{command.name}")',
            "            if [[ $cur == -* ]]; then",
            f'                COMPREPLY=($(compgen -W "{flags}" -- "$cur"))',
            "            else",
            f'                COMPREPLY=($(compgen -W "{offered}" -- "$cur"))',
            "            fi ;;",
        ]
    lines += ["    esac", "}", "complete -o default -F _tlbcore tlbcore"]
    return "\n".join(lines) + "\n"


# --- zsh -------------------------------------------------------------------------------------------------------------


def _zsh(top: CommandText) -> str:
    """A function for each command, with what each option says."""
    lines = ["#compdef tlbcore", "# Completion of tlbcore for zsh: tlbcore completion zsh", ""]
    for command in top.walk():
        lines += [f"{_zsh_name(command)}() {{"]
        if command.commands:
            lines += ["    local context state line", "    local -a commands", "    commands=("]
            lines += [f"        '{below.name.split()[-1]}:{_zsh_text(below.summary)}'" for below in command.commands]
            lines += ["    )"]
        lines += ["    _arguments -C \\"]
        for option in command.options:
            lines += [f"        {_zsh_option(command, option)} \\" for _ in (0,)]
        if command.commands:
            lines += ["        '1: :->command' '*:: :->rest'"]
            lines += ["    case $state in", "        command) _describe command commands ;;"]
            lines += ["        rest) case $words[1] in"]
            lines += [f"            {below.name.split()[-1]}) {_zsh_name(below)} ;;" for below in command.commands]
            lines += ["        esac ;;", "    esac"]
        else:
            lines += [f"        {_zsh_argument(command, argument)} \\" for argument in command.arguments]
            lines += ["        && return 0"]
        lines += ["}", ""]
    # As a file of $fpath it is the body of the function; evaluated it only has to be made known.
    lines += [
        'if [[ "$funcstack[1]" = _tlbcore ]]; then',
        '    _tlbcore "$@"',
        "else",
        "    compdef _tlbcore tlbcore",
        "fi",
    ]
    return "\n".join(lines) + "\n"


def _zsh_name(command: CommandText) -> str:
    return "_" + command.name.replace(" ", "_")


def _zsh_text(text: str) -> str:
    """Text inside single quotes and brackets."""
    return text.replace("'", "'\\''").replace("[", "(").replace("]", ")").replace(":", "\\:")


def _zsh_values(command: CommandText, option: Option) -> str:
    names = _names(command.name, option)
    what = _zsh_text(option.metavar.strip("{}").split(",")[0])
    return f":{what}:" + (f"({_words(names)})" if names else "_files")


def _zsh_option(command: CommandText, option: Option) -> str:
    star = "*" if option.repeated else ""
    value = _zsh_values(command, option) if option.metavar else ""
    return " ".join(f"'{star}{flag}[{_zsh_text(option.help)}]{value}'" for flag in option.flags)


def _zsh_argument(command: CommandText, argument: Option) -> str:
    star = "*" if argument.repeated else ""
    return f"'{star}{_zsh_values(command, argument)}'"


# --- fish ------------------------------------------------------------------------------------------------------------


def _fish(top: CommandText) -> str:
    """A line for each option of each command."""
    lines = ["# Completion of tlbcore for fish: tlbcore completion fish"]
    for command in top.walk():
        where = _fish_where(command)
        for below in command.commands:
            name = below.name.split()[-1]
            lines.append(f"complete -c tlbcore -f{_fish_before(command)} -a {name} -d {_fish_text(below.summary)}")
        for option in command.options:
            flags = "".join(f" -l {f[2:]}" if f.startswith("--") else f" -s {f[1:]}" for f in option.flags)
            names = _names(command.name, option)
            value = f" -x -a {_fish_text(_words(names))}" if names else " -r" if option.metavar else ""
            lines.append(f"complete -c tlbcore{where}{flags}{value} -d {_fish_text(option.help)}")
        for argument in command.arguments:
            names = _names(command.name, argument)
            if names:
                lines.append(
                    f"complete -c tlbcore{where} -a {_fish_text(_words(names))} -d {_fish_text(argument.help)}"
                )
    return "\n".join(lines) + "\n"


def _fish_where(command: CommandText) -> str:
    """When the words of a command have been seen."""
    path = command.name.split()[1:]
    tests = [f"__fish_seen_subcommand_from {word}" for word in path]
    return f" -n {_fish_text('; and '.join(tests))}" if tests else ""


def _fish_before(command: CommandText) -> str:
    """When the word that follows a command is wanted."""
    path = command.name.split()[1:]
    below = _words(tuple(sub.name.split()[-1] for sub in command.commands))
    tests = [*(f"__fish_seen_subcommand_from {word}" for word in path), f"not __fish_seen_subcommand_from {below}"]
    return f" -n {_fish_text('; and '.join(tests))}"


def _fish_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
