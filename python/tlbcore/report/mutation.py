"""What a mutation run found, in few rows: the same change of several programs is one row."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tlbcore.mutate import Mutation

__all__ = ["CHANGE", "Group", "grouped", "reasons"]

#: What a change is called.
CHANGE = {"drop": "without", "swap": "swapped", "move": "moved"}


@dataclass(frozen=True)
class Group:
    """The same change in several programs, or in several places of one, with the same outcome."""

    kind: str
    change: str
    why: str
    mutations: tuple[Mutation, ...]

    @property
    def operations(self) -> tuple[str, ...]:
        """The programs, in their order."""
        return tuple(dict.fromkeys(mutation.operation for mutation in self.mutations))

    @property
    def violated(self) -> tuple[str, ...]:
        """All invariants that any of them violates."""
        return tuple(sorted({name for mutation in self.mutations for name in mutation.violated}))

    @property
    def shortest(self) -> Mutation:
        """The one with the shortest counterexample."""
        return min(self.mutations, key=lambda mutation: mutation.length)


def grouped(mutations: Iterable[Mutation]) -> list[Group]:
    """The mutations by change and reason, in the order in which each change comes first."""
    found: dict[tuple[str, str, str], list[Mutation]] = {}
    for mutation in mutations:
        found.setdefault((mutation.kind, mutation.change, mutation.why), []).append(mutation)
    return [Group(*key, tuple(members)) for key, members in found.items()]


def reasons(mutations: Sequence[Mutation]) -> list[tuple[str, int]]:
    """Why mutants have the outcome that they have: each reason and how often, the most frequent first.

    The step that a refusal names is left out: what matters is what it misses.
    """
    counts: Counter[str] = Counter()
    for mutation in mutations:
        name, space, rest = mutation.why.partition(" ")
        counts[f"a step {rest}" if space and rest.startswith(("needs ", "cannot ")) else mutation.why or name] += 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
