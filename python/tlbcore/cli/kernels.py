"""``tlbcore kernels``: the kernels with their switches; of one its constants, schemes and programs."""

import argparse
from typing import cast

from tlbcore import kernels
from tlbcore.cli import OK
from tlbcore.cli.listing import add_list_and_show, add_operation, columns, print_json, the_operation
from tlbcore.cli.usage_text import tell
from tlbcore.kernel import Kernel
from tlbcore.program import validate
from tlbcore.report.program_text import PlainBlock, program_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    tell(
        parser,
        "A kernel is its constants, and which scheme serves which operation. Switches choose among its variants.",
        ("tlbcore kernels", "all of them, with their switches"),
        ("tlbcore kernels show linux-6.18 --sources", "one, and where in Linux each part stands"),
        (
            "tlbcore kernels show consolidated:pending=vma --operation mprotect",
            "one program of a kernel with a switch set",
        ),
    )
    show = add_list_and_show(
        parser, "kernel", "SPEC", "a kernel (linux-6.18, consolidated:pending=vma), or FILE.py:NAME of your own"
    )
    add_operation(show)
    show.add_argument("--sources", action="store_true", help="all but the programs: what has a source, and which")


def run(args: argparse.Namespace) -> int:
    """List the kernels or show one."""
    if args.action == "show":
        return _show(args)
    families = kernels.FAMILIES.values()
    if args.json:
        print_json(
            [
                {
                    "name": family.name,
                    "title": family.title,
                    "switches": [
                        {
                            "name": switch.name,
                            "help": switch.help,
                            "values": list(switch.values),
                            "sources": dict(switch.sources),
                        }
                        for switch in family.switches
                    ],
                }
                for family in families
            ]
        )
        return OK
    for family in families:
        print(f"{family.name}\n  {family.title}")
        rows = [(f"  {switch.name}", "|".join(switch.values), switch.help) for switch in family.switches]
        print(columns(rows))
    print(
        "\nThe first value of a switch is its default. KERNEL:SWITCH=VALUE,... sets switches, KERNEL:none turns all"
        "\noff; FILE.py:NAME is a kernel of your own."
    )
    return OK


def _show(args: argparse.Namespace) -> int:
    kernel = kernels.get(args.spec)
    only = the_operation(args.operation)
    plain = kernel.resolve()
    validate(plain)
    programs = cast("dict[str, PlainBlock]", plain["programs"])
    if args.json:
        print_json(plain if only is None else programs[only])
        return OK
    if only is not None:
        print(f"/* {kernel.name}: {only} by {type(kernel.schemes[only]).__name__} */")
        print(program_text(only, programs[only]))
        return OK
    print(f"{kernel.name}\n  {kernel.title}\n  source: {kernel.source}")
    for title, rows in _parts(kernel, cast("dict[str, str]", plain["schemes"])):
        if rows:
            print(f"\n{title}")
            print(columns(rows))
    if args.sources:
        return OK
    print("\nprograms")
    for operation, program in programs.items():
        print(f"\n{program_text(operation, program)}")
    return OK


def _parts(kernel: Kernel, schemes: dict[str, str]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """What a kernel is made of: a title, and of each part its name, its value and its sources."""
    known = kernel.all_sources()

    def row(path: str, value: str) -> tuple[str, str, str]:
        name = path.partition(".")[2]
        return f"  {name}", value, "; ".join(str(source) for source in known.get(path, ()))

    return [
        ("switches", [row(f"switches.{name}", value) for name, value in kernel.switches.items()]),
        ("constants", [row(f"constants.{name}", str(value).lower()) for name, value in kernel.constants.items()]),
        ("schemes", [row(f"programs.{operation}", scheme) for operation, scheme in schemes.items()]),
        ("options of the schemes", [row(path, _values(values)) for path, values in kernel.options().items()]),
    ]


def _values(values: dict[str, list[str]]) -> str:
    """The value that most operations have, then the others with those that have them."""
    most, *others = sorted(values, key=lambda value: -len(values[value]))
    return "; ".join([most, *(f"{value}: {', '.join(values[value])}" for value in others)])
