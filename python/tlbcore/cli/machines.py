"""``tlbcore machines``: the machines, and of one every number with its source and how sure it is."""

import argparse
import dataclasses
from typing import cast

from tlbcore import machines
from tlbcore.cli import OK
from tlbcore.cli.listing import add_list_and_show, columns, print_json, wrapped
from tlbcore.cli.usage_text import tell
from tlbcore.machines import Machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    tell(
        parser,
        "A machine is the sizes of its TLBs and what things cost on it; each number has a source and how sure it is.",
        ("tlbcore machines", "all of them, and the names of what can be changed"),
        ("tlbcore machines show zen4_genoa", "one, number by number"),
        ("tlbcore machines show skylake_sp:nr_cpus=64,invlpg_ns=80", "one with changes"),
    )
    add_list_and_show(parser, "machine", "SPEC", "a machine (zen4_genoa), with changes (skylake_sp:nr_cpus=64)")


def run(args: argparse.Namespace) -> int:
    """List the machines or show one."""
    if args.action == "show":
        return _show(args)
    every = [machines.get(name) for name in machines.preset_names()]
    if args.json:
        print_json([_plain(machine) for machine in every])
        return OK
    rows = [("name", "", "l1_4k", "stlb", "levels", "assumed")]
    for machine in every:
        assumed = f"{len(machine.assumed())} of {len(machine.values)} values"
        rows.append(
            (
                machine.name,
                machine.title,
                _size(machine, "l1_4k"),
                _size(machine, "stlb"),
                str(machine.levels),
                assumed,
            )
        )
    print(columns(rows))
    print("\nSizes are entries x ways. MACHINE:NAME=VALUE,... changes values; names:")
    print(wrapped("", " ".join(machines.OVERRIDES)))
    return OK


def _show(args: argparse.Namespace) -> int:
    machine = machines.get(args.spec)
    if args.json:
        print_json(_plain(machine))
        return OK
    print(f"{machine.name}\n  {machine.title}\n")
    print(columns([(f"  {value.name}", value.value, value.confidence, value.source) for value in machine.values]))
    print("\nhow sure")
    used = dict.fromkeys(value.confidence for value in machine.values)
    print(columns([(f"  {name}", machines.CONFIDENCES[name]) for name in machines.CONFIDENCES if name in used]))
    print("\nnot modelled")
    for text in machine.not_modelled:
        print(wrapped("-", text))
    return OK


def _size(machine: Machine, name: str) -> str:
    array = cast("dict[str, int]", machine.tlb[name])
    return f"{array['entries']}x{array['ways']}"


def _plain(machine: Machine) -> dict[str, object]:
    return {
        "name": machine.name,
        "title": machine.title,
        "source": machine.source,
        "config": machine.config(),
        "values": [dataclasses.asdict(value) for value in machine.values],
        "not_modelled": list(machine.not_modelled),
    }
