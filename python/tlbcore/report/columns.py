"""Interleavings in columns, one for each CPU, as kernel developers draw them in commit messages."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["columns"]


def columns(cpus: Sequence[str], events: Sequence[tuple[int, str]], ends: Sequence[str], width: int = 75) -> str:
    """Events below each other, each in the column of its CPU.

    Args:
        cpus: What runs on each CPU.
        events: CPU and text of each event, in their order.
        ends: What the last event leads to.
        width: Characters of a line; texts that are longer than a column are wrapped.

    """
    used = sorted({cpu for cpu, _ in events})
    if not used:
        return ""
    room = max(16, (width - 2) // len(used))
    place = {cpu: 2 + index * room for index, cpu in enumerate(used)}
    heads = [f"CPU{cpu} ({cpus[cpu]})" for cpu in used]
    lines = [
        "".join((" " * 2 if index == 0 else "") + head[: room - 1].ljust(room) for index, head in enumerate(heads))
    ]

    def put(cpu: int, text: str) -> None:
        # The last column may use what is left of the line.
        left = width - place[cpu] if cpu == used[-1] else room - 1
        wrapped = textwrap.wrap(text, max(left, 16), subsequent_indent="  ", break_long_words=False)
        lines.extend(" " * place[cpu] + line for line in wrapped)

    for cpu, text in events:
        put(cpu, text)
    for end in ends:
        put(events[-1][0], f"==> {end}")
    return "\n".join(line.rstrip() for line in lines)
