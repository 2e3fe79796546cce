"""``tlbcore schemes``: the batching schemes, and the programs of one as pseudo-code in the style of the kernel."""

import argparse
import dataclasses

from tlbcore import scheme_lookup
from tlbcore.cli import OK
from tlbcore.cli.listing import add_list_and_show, add_operation, print_json, the_operation, wrapped
from tlbcore.cli.usage_text import tell
from tlbcore.report.program_text import program_text
from tlbcore.scheme import Scheme
from tlbcore.schemes import SCHEMES
from tlbcore.schemes.lazy_mmu import ARCHITECTURES, LazyMmu
from tlbcore.steps import flatten, for_each_pte, set_pte_at


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    tell(
        parser,
        "A scheme is how TLB flushes are batched: a program of kernel-level steps for each operation that it serves.",
        ("tlbcore schemes", "all of them, with where Linux has each"),
        ("tlbcore schemes show mmu-gather --operation munmap", "one program as pseudo-code in the style of the kernel"),
        ("tlbcore schemes show mine.py:Mine", "a scheme of one's own"),
    )
    show = add_list_and_show(
        parser, "scheme", "NAME", "a scheme by its name (MmuGather or mmu-gather), or FILE.py:CLASS of your own"
    )
    add_operation(show)


def run(args: argparse.Namespace) -> int:
    """List the schemes or show one."""
    if args.action == "show":
        return _show(args)
    schemes = [make() for make in SCHEMES.values()]
    if args.json:
        print_json([_summary(scheme) for scheme in schemes])
        return OK
    for scheme in schemes:
        print(f"{type(scheme).__name__}\n{wrapped('', scheme.title())}")
        print(wrapped("where:", scheme.where))
        print(wrapped("operations:", " ".join(scheme.operations()) or "none of its own: it is what others stand in"))
    return OK


def _show(args: argparse.Namespace) -> int:
    scheme = scheme_lookup.get(args.spec)
    only = the_operation(args.operation)
    operations = scheme.operations() if only is None else (only,)
    programs = {operation: [step.resolve() for step in scheme.program(operation)] for operation in operations}
    if isinstance(scheme, LazyMmu):
        programs = {"section": [step.resolve() for step in flatten(LazyMmu.section(for_each_pte(set_pte_at())))]}
    if args.json:
        print_json({"format": "tlbcore-scheme", "version": 1} | _summary(scheme) | {"programs": programs})
        return OK
    print(f"/* {type(scheme).__name__}: {scheme.title()}")
    if scheme.where:
        print(f" * In Linux: {scheme.where}")
    for name, value in _fields(scheme).items():
        print(f" * {name} = {value}")
    if isinstance(scheme, LazyMmu):
        print(" * What a section batches per CPU, drained when the batch is full and at leave:")
        for arch, (kind, batch) in ARCHITECTURES.items():
            print(f" *   {arch}: {f'{batch} x {kind}' if batch else 'nothing'}")
    print(" */")
    for operation, program in programs.items():
        print(f"\n{program_text(operation, program)}")
    return OK


def _summary(scheme: Scheme) -> dict[str, object]:
    return {
        "name": type(scheme).__name__,
        "title": scheme.title(),
        "where": scheme.where,
        "fields": _fields(scheme),
        "operations": list(scheme.operations()),
    }


def _fields(scheme: object) -> dict[str, str]:
    """What can be chosen about the scheme, and what is."""
    if not dataclasses.is_dataclass(scheme):
        return {}
    values = {field.name: getattr(scheme, field.name) for field in dataclasses.fields(scheme)}
    return {name: type(value).__name__ if isinstance(value, Scheme) else str(value) for name, value in values.items()}
