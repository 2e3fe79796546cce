"""``tlbcore kernels``: the kernels with their switches; of one its constants, schemes and programs."""

import argparse
from typing import cast

from tlbcore import kernels
from tlbcore.cli import OK
from tlbcore.cli.listing import add_list_and_show, add_operation, columns, print_json, the_operation
from tlbcore.program import validate
from tlbcore.report.program_text import PlainBlock, program_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    show = add_list_and_show(
        parser, "kernel", "SPEC", "a kernel (linux-6.18, consolidated:pending=vma), or FILE.py:NAME of your own"
    )
    add_operation(show)


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
                        {"name": switch.name, "help": switch.help, "values": list(switch.values)}
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
    for title, rows in (
        ("switches", [(name, value) for name, value in kernel.switches.items()]),
        ("constants", [(name, str(value)) for name, value in kernel.constants.items()]),
        ("schemes", list(cast("dict[str, str]", plain["schemes"]).items())),
    ):
        if rows:
            print(f"\n{title}")
            print(columns([(f"  {name}", value) for name, value in rows]))
    print("\nprograms")
    for operation, program in programs.items():
        print(f"\n{program_text(operation, program)}")
    return OK
