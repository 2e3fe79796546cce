"""What an actor of a random scenario may do next.

Contract: each function proposes one action that the state allows, or nothing, drawing from the state's generator only;
the state changes when the action is applied. An action says which pages it needs and which it changes, so that entries
that run at the same time can be kept apart: a scenario must not die of a signal, whoever is first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.mappings import AddressSpace, File, Range
from lab.scenario import Entry

if TYPE_CHECKING:
    import random

REGIONS = "ABCDEFGH"
# Around what the kernel counts in: the flush ceiling (33), a page table (512), a batch of a gather (510).
SIZES = (1, 2, 3, 4, 7, 8, 10, 11, 16, 31, 32, 33, 34, 40, 64, 100, 101, 200, 511, 512, 513, 600, 1024, 1500)
OFFSETS = (0, 0, 0, 1, 5, 100, 500, 510, 511, 512, 1000, 1024, 1536, 3000)
HUGE_SIZES = (512, 512, 1024, 1024, 1536, 2048, 600, 40)
HUGE_OFFSETS = (0, 0, 512, 1024, 1536, 5, 100)
# More pages than one gather holds (8 + 19 * 510, mm/mmu_gather.c:tlb_next_batch with MAX_GATHER_BATCH_COUNT).
GATHER_SIZES = (9697, 9698, 11000)
MAX_PAGES = 24_000
STRIDES = (2, 3, 7, 64)


@dataclass(slots=True, eq=False)
class Process:
    """An address space and where it came from."""

    space: AddressSpace
    parent: Process | None
    # The actor that was forked, by whose name the parent waits.
    name: str = "T0"
    exited: bool = False


@dataclass(slots=True, eq=False)
class Actor:
    """A thread."""

    name: str
    process: Process
    cpu: int
    spins: bool


@dataclass(slots=True)
class Action:
    """A proposal: the entry, what it may not meet, and what it does to the state."""

    entry: Entry
    process: Process
    needs: frozenset[tuple[str, int]] = frozenset()
    changes: frozenset[tuple[str, int]] = frozenset()
    # An access or a cut of a file may meet one in another process too.
    accesses_file: bool = False
    cuts_file: bool = False
    # Starts, ends or copies an address space, or moves an actor: stands alone in its step.
    alone: bool = False
    apply: Callable[[], None] = lambda: None

    def conflicts(self, other: Action) -> bool:
        """Whether the two may not be in one step."""
        if (
            self.alone
            or other.alone
            or (self.accesses_file and other.cuts_file)
            or (self.cuts_file and other.accesses_file)
        ):
            return True
        if self.cuts_file and other.cuts_file:
            return True
        if self.process is not other.process:
            return False
        mine, its = self.changes, other.changes
        return not (mine.isdisjoint(its) and mine.isdisjoint(other.needs) and its.isdisjoint(self.needs))


@dataclass(slots=True)
class State:
    """All of a scenario under way."""

    rng: random.Random
    nr_cpus: int
    huge: bool = False
    files_allowed: bool = True
    large_allowed: bool = False
    actors: list[Actor] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    nr_named: int = 0

    def spinner_on(self, cpu: int) -> bool:
        """Whether an actor spins there: a second one would share its time by the scheduler's clock."""
        return any(actor.spins and actor.cpu == cpu for actor in self.actors)

    def size(self) -> int:
        """A number of pages to map."""
        if self.large_allowed and self.rng.random() < 0.1:
            return self.rng.choice(GATHER_SIZES)
        return self.rng.choice(HUGE_SIZES if self.huge else SIZES)

    def place(self, nr_pages: int) -> Range:
        """Somewhere to map."""
        return Range(self.rng.choice(REGIONS), self.rng.choice(HUGE_OFFSETS if self.huge else OFFSETS), nr_pages)

    def some_run(self, space: AddressSpace, wanted: Callable[[Range], bool] = lambda _: True) -> Range | None:
        """One of the mapped runs that are as wanted."""
        runs = [run for run in space.runs() if wanted(run)]
        return self.rng.choice(runs) if runs else None

    def part(self, run: Range) -> Range:
        """All of it, or some of it."""
        if run.nr_pages == 1 or self.rng.random() < 0.45:
            return run
        kind = self.rng.random()
        if self.huge and kind < 0.4 and run.nr_pages > 512:
            first = run.first + 512 * self.rng.randrange(run.nr_pages // 512)
            return Range(run.region, first, min(512, run.first + run.nr_pages - first))
        nr_pages = self.rng.randint(1, min(run.nr_pages, 40) if kind < 0.6 else run.nr_pages)
        return Range(run.region, run.first + self.rng.randint(0, run.nr_pages - nr_pages), nr_pages)

    def some_part(self, space: AddressSpace) -> Range | None:
        """Part of something mapped."""
        run = self.some_run(space)
        return None if run is None else self.part(run)

    def repetitions(self) -> int:
        """Mostly 1."""
        return self.rng.choice((2, 3, 5)) if self.rng.random() < 0.06 else 1


Proposal = Callable[[State, Actor], "Action | None"]


def _action(actor: Actor, op: str, *args: object, repetitions: int = 1) -> Action:
    return Action(Entry(actor.name, op, tuple(map(str, args)), repetitions), actor.process)


def _changing(action: Action, *ranges: Range) -> Action:
    action.changes = frozenset(key for where in ranges for key in where.places())
    return action


def mmap(state: State, actor: Actor) -> Action | None:
    """Maps memory or a file, mostly where nothing is."""
    space, rng = actor.process.space, state.rng
    where = state.place(state.size())
    taken = any(key in space.pages for key in where.places())
    if len(space.pages) + where.nr_pages > MAX_PAGES or (taken and rng.random() < 0.85):
        return None
    protection = rng.choices(("rw", "r", "none", "rx", "rwx"), (80, 12, 3, 3, 2))[0]
    backing = rng.choices(("anon", "shared", "file", "sfile"), (60, 16, 10, 14))[0]
    file, file_page, words = None, 0, [backing]
    if backing in {"file", "sfile"}:
        if not state.files:
            return None
        file = rng.choice(state.files)
        words = [f"{backing}:{file.name}"]
        if file.nr_pages > 2 and rng.random() < 0.2:
            file_page = rng.randrange(file.nr_pages // 2)
            words.append(str(file_page))
        if rng.random() < 0.8:
            where = Range(where.region, where.first, max(1, file.nr_pages - file_page))
    action = _changing(_action(actor, "mmap", *where.words, protection, *words), where)
    action.apply = lambda: space.map(where, protection, backing, file, file_page)
    return action


def touch(state: State, actor: Actor) -> Action | None:
    """Accesses pages that can be."""
    space, rng = actor.process.space, state.rng
    where = state.some_part(space)
    if where is None:
        return None
    access = "w" if rng.random() < 0.6 else "r"
    if not space.accessible(where, access):
        access = "r"
        if not space.accessible(where, access):
            return None
    words: list[object] = [*where.words, access]
    if state.huge and rng.random() < 0.5:
        words.append(512)
    elif rng.random() < 0.12:
        words.append(rng.choice(STRIDES))
    action = _action(actor, "touch", *words, repetitions=state.repetitions())
    action.needs = frozenset(where.places())
    action.accesses_file = any(space.pages[key].file is not None for key in where.places())
    return action


def munmap(state: State, actor: Actor) -> Action | None:
    """Unmaps, sometimes more than is mapped."""
    space = actor.process.space
    where = state.some_part(space)
    if where is None:
        return None
    if state.rng.random() < 0.05:
        where = Range(where.region, where.first, where.nr_pages + state.rng.choice((1, 20, 600)))
    action = _changing(_action(actor, "munmap", *where.words), where)
    action.apply = lambda: space.unmap(where)
    return action


def mprotect(state: State, actor: Actor) -> Action | None:
    """Changes protections."""
    space = actor.process.space
    where = state.some_part(space)
    if where is None:
        return None
    protection = state.rng.choices(("r", "rw", "none", "rx", "rwx"), (40, 40, 10, 6, 4))[0]
    action = _action(actor, "mprotect", *where.words, protection, repetitions=state.repetitions())
    action.apply = lambda: space.protect(where, protection)
    return _changing(action, where)


_ADVICE = {
    "dontneed": 40,
    "free": 20,
    "cold": 6,
    "pageout": 8,
    "populate": 6,
    "hugepage": 2,
    "nohugepage": 2,
    "dontfork": 2,
}


def madvise(state: State, actor: Actor) -> Action | None:
    """Gives an advice, mostly one that the memory takes."""
    space, rng = actor.process.space, state.rng
    where = state.some_part(space)
    if where is None:
        return None
    advice = rng.choices(list(_ADVICE), list(_ADVICE.values()))[0]
    first = space.pages[where.region, where.first]
    if first.file is not None and advice == "free" and rng.random() < 0.9:
        advice = "dontneed"
    if first.backing in {"shared", "sfile"} and rng.random() < 0.1:
        advice = "remove"
    if state.huge and rng.random() < 0.15:
        advice = rng.choice(("hugepage", "nohugepage", "collapse"))
    action = _action(actor, "madvise", *where.words, advice, repetitions=state.repetitions())
    if advice in {"hugepage", "nohugepage", "dontfork"}:
        action.apply = lambda: space.split(where, forked=advice != "dontfork")
        return _changing(action, where)
    return action


def mremap(state: State, actor: Actor) -> Action | None:
    """Moves, sometimes with another size, sometimes over something."""
    space, rng = actor.process.space, state.rng
    old = state.some_part(space)
    if old is None or not space.in_one_area(old):
        return None
    nr_pages = old.nr_pages
    if rng.random() < 0.2:
        nr_pages = rng.choice((max(1, nr_pages // 2), nr_pages + 3, nr_pages + 40))
    new = state.place(nr_pages)
    if rng.random() < 0.3:
        # Aligned alike, as one that moves whole page tables is.
        new = Range(new.region, old.first % 512 + 512 * rng.randrange(3), nr_pages)
    taken = any(key in space.pages for key in new.places())
    overlaps = (
        new.region == old.region and new.first < old.first + old.nr_pages and old.first < new.first + new.nr_pages
    )
    if overlaps or (taken and rng.random() < 0.8) or len(space.pages) + nr_pages > MAX_PAGES:
        return None
    words: list[object] = [*old.words, new.region, new.first]
    if nr_pages != old.nr_pages:
        words.append(nr_pages)
    action = _changing(_action(actor, "mremap", *words), old, new)
    action.apply = lambda: space.move(old, new)
    return action


def mresize(state: State, actor: Actor) -> Action | None:
    """Shrinks or grows in place."""
    space, rng = actor.process.space, state.rng
    run = state.some_run(space, space.in_one_area)
    if run is None:
        return None
    if run.nr_pages > 1 and rng.random() < 0.6:
        nr_pages = rng.randint(1, run.nr_pages - 1)
    else:
        nr_pages = run.nr_pages + rng.choice((1, 4, 40, 600))
    grown = Range(run.region, run.first, max(nr_pages, run.nr_pages))
    if any(key in space.pages and page not in run.pages for key, page in zip(grown.places(), grown.pages, strict=True)):
        return None
    action = _changing(_action(actor, "mresize", *run.words, nr_pages), grown)
    action.apply = lambda: space.resize(run, nr_pages)
    return action


def file_call(state: State, actor: Actor) -> Action | None:
    """Makes, writes back, cuts or punches a file."""
    rng = state.rng
    if not state.files_allowed:
        return None
    if not state.files or (len(state.files) < 4 and rng.random() < 0.2):
        return _mkfile(state, actor)
    file = rng.choice(state.files)
    op = rng.choices(("msync", "fsync", "ftrunc", "fpunch"), (45, 20, 12, 23))[0]
    if op == "msync":
        return _msync(state, actor)
    if op == "ftrunc":
        return _ftrunc(state, actor, file)
    if op == "fpunch" and file.nr_pages > 0:
        first = rng.randrange(file.nr_pages)
        return _action(actor, "fpunch", file.name, first, rng.randint(1, file.nr_pages - first))
    return _action(actor, "fsync", file.name)


def _mkfile(state: State, actor: Actor) -> Action:
    file = File(f"f{len(state.files)}", state.rng.choice((1, 8, 33, 40, 100, 520, 600)))
    action = _action(actor, "mkfile", file.name, file.nr_pages)
    action.alone = True
    action.apply = lambda: state.files.append(file)
    return action


def _msync(state: State, actor: Actor) -> Action | None:
    space = actor.process.space
    run = state.some_run(space, lambda run: space.pages[run.region, run.first].backing == "sfile")
    return None if run is None else _action(actor, "msync", *state.part(run).words)


def _ftrunc(state: State, actor: Actor, file: File) -> Action:
    nr_pages = state.rng.choice((0, file.nr_pages // 2, file.nr_pages, file.nr_pages + 20))
    action = _action(actor, "ftrunc", file.name, nr_pages)
    action.cuts_file = True
    action.apply = lambda: setattr(file, "nr_pages", nr_pages)
    return action


def clearrefs(state: State, actor: Actor) -> Action | None:
    """Writes to /proc/self/clear_refs."""
    return _action(actor, "clearrefs", state.rng.choice((1, 4, 4)))


def creclaim(state: State, actor: Actor) -> Action | None:
    """Reclaims from the memory cgroup, which all processes share."""
    action = _action(actor, "creclaim", state.rng.choice((20, 32, 50, 100, 350)))
    action.alone = state.rng.random() < 0.7
    return action


def rest(state: State, actor: Actor) -> Action | None:
    """Does nothing to memory: brings a sleeper's CPU back into the mask."""
    return _action(actor, state.rng.choice(("getpid", "nop")))


def move(state: State, actor: Actor) -> Action | None:
    """Moves to another CPU."""
    cpu = state.rng.randrange(state.nr_cpus)
    if cpu == actor.cpu or (actor.spins and state.spinner_on(cpu)):
        return None
    action = _action(actor, "cpu", cpu)
    action.alone = True
    action.apply = lambda: setattr(actor, "cpu", cpu)
    return action


def change_mode(state: State, actor: Actor) -> Action | None:
    """Waits in the other way from now on."""
    spins = not actor.spins
    if spins and state.spinner_on(actor.cpu):
        return None
    action = _action(actor, "mode", "spin" if spins else "sleep")
    action.alone = True
    action.apply = lambda: setattr(actor, "spins", spins)
    return action


def _new_actor(state: State, creator: Actor, process: Process, cpu: int, *, spins: bool) -> Action:
    """A thread of the creator's process, or the first one of a new process."""
    forks = process is not creator.process
    name = f"{'P' if forks else 'T'}{state.nr_named + 1}"
    action = _action(creator, "fork" if forks else "thread", name, cpu, "spin" if spins else "sleep")
    action.alone = True

    def apply() -> None:
        state.nr_named += 1
        if forks:
            process.space = creator.process.space.forked()
            process.name = name
            state.processes.append(process)
        state.actors.append(Actor(name, process, cpu, spins))

    action.apply = apply
    return action


def start_thread(state: State, actor: Actor, cpu: int | None = None) -> Action | None:
    """Starts a thread of the actor's process."""
    cpu = state.rng.randrange(state.nr_cpus) if cpu is None else cpu
    spins = state.rng.random() < 0.6 and not state.spinner_on(cpu)
    return _new_actor(state, actor, actor.process, cpu, spins=spins)


def fork(state: State, actor: Actor) -> Action | None:
    """Forks a process."""
    if sum(not process.exited for process in state.processes) > 3:
        return None
    cpu = state.rng.randrange(state.nr_cpus)
    spins = state.rng.random() < 0.4 and not state.spinner_on(cpu)
    return _new_actor(state, actor, Process(AddressSpace(), actor.process), cpu, spins=spins)


def leave(state: State, actor: Actor) -> Action | None:
    """Ends a forked process, all its threads with it."""
    process = actor.process
    if process.parent is None:
        return None
    action = _action(actor, "exit")
    action.alone = True

    def apply() -> None:
        process.exited = True
        state.actors = [other for other in state.actors if other.process is not process]

    action.apply = apply
    return action


def reap(state: State, actor: Actor) -> Action | None:
    """Waits for a child that has ended."""
    children = [process for process in state.processes if process.exited and process.parent is actor.process]
    if not children:
        return None
    child = state.rng.choice(children)
    action = _action(actor, "wait", child.name)
    action.alone = True
    action.apply = lambda: state.processes.remove(child)
    return action
