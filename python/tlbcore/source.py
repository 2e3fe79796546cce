"""Where a fact about Linux stands: in a file of a version, in a commit, or in what the kernel lab recorded.

A source has one of three forms, each with or without ``: NOTE`` at its end; ``; `` stands between several:

- ``mm/memory.c:zap_pte_range (v6.18.2)``: a file, mostly with the function or name in it, and a version, or the patch
  of the series of January 2021 that proposes it (``RFC 16/20``; ``RFC 00/20`` is the series and its review);
- ``commit 5df397dec7c4 (v6.2)``: a commit, and the version that first has it;
- ``kernel lab, rule 7``: a rule that the recorded flushes obey (``docs/lab-rules.md``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tlbcore.errors import InputError

#: The rules of the kernel lab count from 1 to this.
NR_LAB_RULES: Final = 14

Kind: TypeAlias = Literal["file", "commit", "lab rule"]

_VERSION: Final = r"v\d+\.\d+(?:\.\d+)?|RFC (?:0\d|1\d|20)/20"
_FORMS: Final[tuple[tuple[Kind, re.Pattern[str]], ...]] = (
    (
        "file",
        re.compile(
            rf"(?P<where>[\w.-]+(?:/[\w.-]+)*\.[chS](?::[A-Za-z_]\w*)?) \((?P<version>{_VERSION})\)(?:: (?P<note>.+))?"
        ),
    ),
    (
        "commit",
        re.compile(r"commit (?P<where>[0-9a-f]{12}) \((?P<version>v\d+\.\d+)\)(?:: (?P<note>.+))?"),
    ),
    ("lab rule", re.compile(r"kernel lab, rule (?P<where>\d+)(?:: (?P<note>.+))?")),
)
_EXPECTED: Final = "FILE:FUNCTION (vX.Y), commit ID (vX.Y) with the first 12 digits of ID, or kernel lab, rule N"


@dataclass(frozen=True)
class Source:
    """Where one fact stands.

    >>> str(Source.parse("commit 5df397dec7c4 (v6.2): rmaps go after the flush"))
    'commit 5df397dec7c4 (v6.2): rmaps go after the flush'
    >>> Source.parse("kernel lab, rule 7")
    Source(kind='lab rule', where='7', version='', note='')
    """

    kind: Kind
    #: ``FILE`` or ``FILE:NAME``; the commit's id; the rule's number.
    where: str
    #: The version that the file is of, or that first has the commit; empty for a rule of the lab.
    version: str = ""
    #: What more there is to say.
    note: str = ""

    @classmethod
    def parse(cls, text: str) -> Source:
        """One source from its text.

        Raises:
            InputError: The text has none of the three forms, or the lab has no such rule.
        """
        for kind, form in _FORMS:
            found = form.fullmatch(text)
            if found is None:
                continue
            parts = found.groupdict(default="")
            if kind == "lab rule" and not 1 <= int(parts["where"]) <= NR_LAB_RULES:
                raise InputError(f"source: found rule {parts['where']}, expected one of 1 to {NR_LAB_RULES}")
            return cls(kind, parts["where"], parts.get("version", ""), parts["note"])
        raise InputError(f"source: found {text!r}, expected {_EXPECTED}")

    def __str__(self) -> str:
        """The text that `parse` reads."""
        note = f": {self.note}" if self.note else ""
        if self.kind == "lab rule":
            return f"kernel lab, rule {self.where}{note}"
        return f"{'commit ' if self.kind == 'commit' else ''}{self.where} ({self.version}){note}"


#: The sources of one fact.
Sources: TypeAlias = tuple[Source, ...]


def parse_sources(text: str) -> Sources:
    """All sources of a text that has ``; `` between them.

    Raises:
        InputError: As `Source.parse`.
    """
    return tuple(Source.parse(part) for part in text.split("; "))
