"""Lines of the guest's trace, as /sys/kernel/tracing/trace has them.

Contract: one `Line` for each event in order of time; headers and what is no event are left out. Values stay text until
somebody wants a number. Times count from the first marker of the runner, in microseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.scenario import NR_REGIONS, PAGE_BYTES, REGION_BASE, REGION_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

# COMM-TID (TGID) [CPU] FLAGS SECONDS: EVENT: ...; a name may hold blanks and dashes.
_LINE = re.compile(r"^\s*(.*?)-(\d+)\s+\(\s*[\d-]+\)\s+\[(\d+)\]\s+\S+\s+([\d.]+): (\w+): ?(.*)$")
_VALUE = re.compile(r"(\w+)=(\S+)")
MARKER = "tracing_mark_write"


@dataclass(frozen=True, slots=True)
class Line:
    """One event."""

    comm: str
    tid: int
    cpu: int
    seconds: float
    event: str
    text: str

    @property
    def words(self) -> list[str]:
        """Of the text."""
        return self.text.split()

    @property
    def values(self) -> dict[str, str]:
        """What stands as NAME=VALUE."""
        return dict(_VALUE.findall(self.text))

    def number(self, name: str) -> int:
        """A value in decimal, or in hexadecimal after 0x."""
        return int(self.values[name], 0)


def read(lines: Iterable[str]) -> list[Line]:
    """The events from the first marker of the runner on."""
    found: list[Line] = []
    for line in lines:
        matched = _LINE.match(line)
        if matched is None:
            continue
        comm, tid, cpu, seconds, event, text = matched.groups()
        if not found and not (event == MARKER and text.startswith("A T0 ")):
            continue
        found.append(Line(comm, int(tid), int(cpu), float(seconds), event, text))
    return found


def place(address: int) -> str | None:
    """Region and page of an address, as REGION+PAGE; nothing outside of all regions."""
    region, offset = divmod(address - REGION_BASE, REGION_BYTES)
    if not 0 <= region < NR_REGIONS:
        return None
    return f"{chr(ord('A') + region)}+{offset // PAGE_BYTES}"
