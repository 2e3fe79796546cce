"""Write random scenarios: the same for the same seed and options.

Contract: a scenario is accepted by the runner and by `tlbcore import`, no actor dies of a signal, and every actor that
could act is drawn from. What may come next stands in `actions.py`.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab import actions
from lab.actions import Action, Actor, Process, State
from lab.errors import LabError
from lab.mappings import AddressSpace
from lab.scenario import MAX_ACTORS, MAX_CPUS, MAX_STEPS, Scenario

if TYPE_CHECKING:
    import argparse

# How often each operation is tried; one that the state does not allow falls out.
WEIGHTS = {
    actions.mmap: 16,
    actions.touch: 40,
    actions.munmap: 8,
    actions.mprotect: 11,
    actions.madvise: 13,
    actions.mremap: 5,
    actions.mresize: 3,
    actions.clearrefs: 1,
    actions.rest: 3,
    actions.change_mode: 2,
}
FILE_WEIGHTS = {actions.file_call: 8}
FORK_WEIGHTS = {actions.fork: 3, actions.leave: 2, actions.reap: 3, actions.start_thread: 1}
MOVE_WEIGHTS = {actions.move: 4}
RECLAIM_WEIGHTS = {actions.creclaim: 8}
# Many threads at once that drop or protect the same memory: gathers that overlap.
NESTED_WEIGHTS = {actions.madvise: 40, actions.mprotect: 10, actions.touch: 40, actions.mmap: 8, actions.munmap: 3}
MAX_TRIES = 60


@dataclass(frozen=True, slots=True)
class Options:
    """What a random scenario is made of."""

    nr_steps: int = 80
    nr_cpus: int = 4
    nr_threads: int = 3
    parallel: float = 0.0
    thp: str = "never"
    files: bool = True
    forks: bool = True
    moves: bool = True
    large: bool = False
    memcg: bool = False
    nested: bool = False


def _weights(options: Options) -> dict[actions.Proposal, int]:
    if options.nested:
        return dict(NESTED_WEIGHTS)
    weights: dict[actions.Proposal, int] = dict(WEIGHTS)
    for wanted, more in (
        (options.files, FILE_WEIGHTS),
        (options.forks, FORK_WEIGHTS),
        (options.moves, MOVE_WEIGHTS),
        (options.memcg, RECLAIM_WEIGHTS),
    ):
        if wanted:
            weights |= more
    return weights


def _propose(state: State, actor: Actor, weights: dict[actions.Proposal, int], step: list[Action]) -> Action | None:
    """An action that goes together with those of the step so far, or nothing if luck does not give one."""
    for _ in range(MAX_TRIES):
        proposal = state.rng.choices(list(weights), list(weights.values()))[0]
        if proposal in {actions.fork, actions.start_thread} and state.nr_named + 2 >= MAX_ACTORS:
            continue
        action = proposal(state, actor)
        if action is not None and not any(action.conflicts(other) for other in step):
            return action
    return None


class _Writer:
    """A scenario under way, beginning with T0."""

    def __init__(self, rng: random.Random, options: Options) -> None:
        self.state = State(rng, options.nr_cpus, options.thp == "always", options.files, options.large)
        main = Process(AddressSpace(), None)
        self.state.processes.append(main)
        self.state.actors.append(Actor("T0", main, 0, spins=True))
        self.scenario = Scenario()
        if options.thp != "never":
            self.scenario.settings["thp"] = options.thp
        if options.memcg:
            self.scenario.settings["memcg"] = "1"

    def take(self, *step: Action) -> None:
        self.scenario.steps.append(tuple(action.entry for action in step))
        for action in step:
            action.apply()

    def start_threads(self, number: int) -> None:
        first = self.state.actors[0]
        for thread in range(1, number + 1):
            start = actions.start_thread(self.state, first, thread % self.state.nr_cpus)
            if start is not None:
                self.take(start)

    def step(self, together: int, weights: dict[actions.Proposal, int]) -> None:
        """One step, of fewer entries than wanted if luck does not give them."""
        step: list[Action] = []
        for actor in self.state.rng.sample(self.state.actors, min(together, len(self.state.actors))):
            action = _propose(self.state, actor, weights, step)
            if action is not None:
                step.append(action)
        if step:
            self.take(*step)


def generate(seed: int, options: Options) -> Scenario:
    """One scenario."""
    rng = random.Random(f"{seed} {options}")
    writer = _Writer(rng, options)
    writer.start_threads(options.nr_threads)
    weights = _weights(options)
    while len(writer.scenario.steps) < options.nr_steps:
        writer.step(rng.randint(2, 3) if rng.random() < options.parallel else 1, weights)
    return writer.scenario


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m lab generate`."""
    parser.add_argument("--seed", type=int, default=0, help="of the first scenario, the next has the next (default 0)")
    parser.add_argument("--number", type=int, default=1, metavar="N", help="how many scenarios (default 1)")
    parser.add_argument("--steps", type=int, default=80, metavar="N", help="steps of each (default 80)")
    parser.add_argument("--cpus", type=int, default=4, metavar="N", help="CPUs to use (default 4)")
    parser.add_argument("--threads", type=int, default=3, metavar="N", help="threads beside T0 (default 3)")
    parser.add_argument("--parallel", type=float, default=0.0, metavar="P", help="share of parallel steps (default 0)")
    parser.add_argument("--thp", choices=("always", "madvise", "never"), default="never", help="huge pages")
    parser.add_argument("--no-files", action="store_true", help="no files")
    parser.add_argument("--no-forks", action="store_true", help="no processes, and no threads but those at the start")
    parser.add_argument("--no-moves", action="store_true", help="nobody changes CPU")
    parser.add_argument("--large", action="store_true", help="some mappings of more pages than one gather holds")
    parser.add_argument("--memcg", action="store_true", help="a memory cgroup that is reclaimed from")
    parser.add_argument("--nested", action="store_true", help="mostly madvise and mprotect, for gathers that overlap")
    parser.add_argument("--name", default="random", help="files are NAME_SEED.scn (default random)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write; without it, standard output")


def run(arguments: argparse.Namespace) -> int:
    """Does it; returns the exit status.

    Raises:
        LabError: an option that makes no scenario.
    """
    limits = (("number", 1, MAX_STEPS), ("steps", 1, MAX_STEPS), ("cpus", 1, MAX_CPUS), ("threads", 0, MAX_ACTORS - 1))
    for name, least, most in limits:
        if not least <= getattr(arguments, name) <= most:
            raise LabError(f"--{name}: found {getattr(arguments, name)}, expected {least} to {most}")
    options = Options(
        nr_steps=arguments.steps,
        nr_cpus=arguments.cpus,
        nr_threads=arguments.threads,
        parallel=arguments.parallel,
        thp=arguments.thp,
        files=not arguments.no_files,
        forks=not arguments.no_forks,
        moves=not arguments.no_moves,
        large=arguments.large,
        memcg=arguments.memcg,
        nested=arguments.nested,
    )
    for seed in range(arguments.seed, arguments.seed + arguments.number):
        text = str(generate(seed, options))
        if arguments.out is None:
            sys.stdout.write(text)
            continue
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / f"{arguments.name}_{seed}.scn").write_text(text, encoding="utf-8")
    return 0
