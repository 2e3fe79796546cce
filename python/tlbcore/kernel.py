"""A kernel: its constants, and which scheme serves which operation; where each of them stands in Linux."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from tlbcore.errors import InputError
from tlbcore.given import wrong_kind
from tlbcore.lookup import nearest
from tlbcore.report.html import html_table
from tlbcore.scheme import OPERATIONS, Scheme
from tlbcore.source import Sources, parse_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: The plain structure's name and version (`docs/steps.md` section 1).
FORMAT, VERSION = "tlbcore-kernel", 1

Constant: TypeAlias = int | bool | str
ResolvedKernel: TypeAlias = dict[str, object]

#: What somebody may have wanted who gave something else than a scheme.
_HINTS: dict[type | tuple[type, ...], str] = {type: "an object of it, CLASS()", str: "tlbcore.schemes.get finds one"}


@dataclass(frozen=True)
class Sourced:
    """A constant's value, and where it stands (`tlbcore.source`)."""

    value: Constant
    source: str


@dataclass(frozen=True, repr=False)
class Kernel:
    """What `replay`, `compare` and `validate` run.

    >>> from tlbcore import kernels, schemes
    >>> kernels.get("linux-6.18")
    <Kernel linux-6.18: Linux 6.18: lazily cleared mm_cpumask>

    >>> mine = kernels.get("linux-6.18").derive("mine", munmap=schemes.MmuGather(delay_rmap=False))
    >>> mine.schemes["munmap"].delay_rmap
    False
    >>> mine.unsourced()
    ('programs.munmap',)
    """

    name: str
    title: str
    source: str
    constants: Mapping[str, Constant]
    schemes: Mapping[str, Scheme]
    switches: Mapping[str, str] = field(default_factory=dict)
    #: Where each part stands, by its path in the plain structure, such as ``constants.thp`` and ``programs.munmap``.
    #: The schemes say it of their options.
    sources: Mapping[str, Sources] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line."""
        return f"<Kernel {self.name}: {self.title}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: switches, constants, and which scheme serves which operation, each with its source."""
        values = [(f"switches.{name}", value) for name, value in self.switches.items()]
        values += [(f"constants.{name}", _text(value)) for name, value in self.constants.items()]
        served = [operation for operation in OPERATIONS if operation in self.schemes]
        values += [(f"programs.{operation}", type(self.schemes[operation]).__name__) for operation in served]
        rows = [[path, value, "; ".join(map(str, self.sources.get(path, ())))] for path, value in values]
        return html_table(f"{self.name}: {self.title}", ["part", "value", "source"], rows)

    @classmethod
    def with_sources(  # noqa: PLR0913 - what a kernel is made of
        cls,
        *,
        name: str,
        title: str,
        source: str,
        constants: Mapping[str, Sourced],
        schemes: Mapping[str, Scheme],
        programs: Mapping[str, str],
        switches: Mapping[str, str],
    ) -> Kernel:
        """A kernel whose constants come with their sources; `programs` has those of its programs, by operation.

        Raises:
            InputError: The text of a source has none of its forms.
        """
        texts = {f"constants.{constant}": sourced.source for constant, sourced in constants.items()}
        texts |= {f"programs.{operation}": text for operation, text in programs.items()}
        return cls(
            name=name,
            title=title,
            source=source,
            constants={constant: sourced.value for constant, sourced in constants.items()},
            schemes=schemes,
            switches=dict(switches),
            sources=_parsed(name, texts),
        )

    def parts(self) -> tuple[str, ...]:
        """The paths of all that has a source or should have one.

        ``constants.NAME``, ``switches.NAME`` (of the value that is set), ``programs.OPERATION`` (which scheme serves
        it) and ``options.SCHEME.OPTION``.
        """
        return (
            *(f"constants.{name}" for name in self.constants),
            *(f"switches.{name}" for name in self.switches),
            *(f"programs.{operation}" for operation in OPERATIONS if operation in self.schemes),
            *self.options(),
        )

    def options(self) -> dict[str, dict[str, list[str]]]:
        """The options of the schemes in use, by path: of each value the operations that are served with it."""
        found: dict[str, dict[str, list[str]]] = {}
        for operation in OPERATIONS:
            scheme = self.schemes.get(operation)
            for owner, option, value in scheme.options() if scheme is not None else ():
                text = type(value).__name__ if isinstance(value, Scheme) else _text(value)
                users = found.setdefault(f"options.{type(owner).__name__}.{option}", {}).setdefault(text, [])
                users += [operation] if operation not in users else []
        return found

    def all_sources(self) -> dict[str, Sources]:
        """The sources of all parts that have one, in the order of `parts`.

        Raises:
            InputError: A scheme's source has none of the forms that a source has.
        """
        known = dict(self.sources)
        for path, text in self._sources_of_options():
            known.setdefault(path, _parsed(self.name, {path: text})[path])
        return {path: known[path] for path in self.parts() if path in known}

    def _sources_of_options(self) -> Iterator[tuple[str, str]]:
        for scheme in self.schemes.values():
            for owner, option, _ in scheme.options():
                if option in owner.sources:
                    yield f"options.{type(owner).__name__}.{option}", owner.sources[option]

    def unsourced(self) -> tuple[str, ...]:
        """The parts without a source: of a kernel that tlbcore has none, of one's own perhaps what one changed."""
        known = self.all_sources()
        return tuple(path for path in self.parts() if path not in known)

    def derive(
        self,
        name: str,
        *,
        constants: Mapping[str, Constant] | None = None,
        sources: Mapping[str, str] | None = None,
        **schemes: Scheme,
    ) -> Kernel:
        """This kernel under another name, with some constants changed and some operations served by other schemes.

        What is not changed keeps its sources; what is has those of `sources`, whose keys are paths of `parts`.

        Raises:
            InputError: An operation, a constant or a part that no kernel has, or a source without one of its forms.

        """
        for operation, scheme in schemes.items():
            if operation not in OPERATIONS:
                expected = f"{', '.join(OPERATIONS)}{nearest(operation, OPERATIONS)}"
                raise InputError(f"kernel {name}: found operation {operation}, expected one of {expected}")
            if not isinstance(scheme, Scheme):
                raise wrong_kind(f"kernel {name}: {operation}", scheme, "a scheme", _HINTS)
        for constant in constants or {}:
            if constant not in self.constants:
                expected = f"{', '.join(self.constants)}{nearest(constant, self.constants)}"
                raise InputError(f"kernel {name}: found constant {constant}, expected one of {expected}")
        changed = {f"constants.{key}" for key, value in (constants or {}).items() if value != self.constants[key]}
        changed |= {f"programs.{key}" for key, scheme in schemes.items() if scheme != self.schemes.get(key)}
        kept = {path: found for path, found in self.sources.items() if path not in changed}
        derived = replace(
            self,
            name=name,
            title=f"{self.title}, changed",
            constants={**self.constants, **(constants or {})},
            schemes={**self.schemes, **schemes},
            sources={**kept, **_parsed(name, sources or {})},
        )
        for path in sources or {}:
            if path not in derived.parts():
                expected = f"a part such as programs.munmap{nearest(path, derived.parts())}"
                raise InputError(f"kernel {name}: found a source of {path}, expected that of {expected}")
        return derived

    def resolve(self) -> ResolvedKernel:
        """The plain structure that the Rust core compiles and the reference interprets.

        Raises:
            InputError: An operation without a scheme.

        """
        missing = [operation for operation in OPERATIONS if operation not in self.schemes]
        if missing:
            raise InputError(f"kernel {self.name}: no scheme for {', '.join(missing)}")
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "title": self.title,
            "source": self.source,
            "switches": dict(self.switches),
            "constants": dict(self.constants),
            "schemes": {operation: type(self.schemes[operation]).__name__ for operation in OPERATIONS},
            "sources": {path: [str(source) for source in found] for path, found in self.all_sources().items()},
            "programs": {
                operation: [step.resolve() for step in self.schemes[operation].program(operation)]
                for operation in OPERATIONS
            },
        }

    def to_json(self) -> str:
        """The plain structure as JSON text."""
        return json.dumps(self.resolve())


def _parsed(kernel: str, texts: Mapping[str, str]) -> dict[str, Sources]:
    found = {}
    for path, text in texts.items():
        try:
            found[path] = parse_sources(text)
        except InputError as error:
            raise InputError(f"kernel {kernel}: {path}: {error}") from error
    return found


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool | None) else str(value)


@dataclass(frozen=True)
class Switch:
    """Something of a kernel that can be chosen: its values, the first of which is the default."""

    name: str
    help: str
    #: The source of each value.
    sources: Mapping[str, str]

    @property
    def values(self) -> tuple[str, ...]:
        """The values, the default first."""
        return tuple(self.sources)

    @property
    def default(self) -> str:
        """The value when nothing is said."""
        return self.values[0]


@dataclass(frozen=True)
class KernelFamily:
    """A kernel with its switches."""

    name: str
    title: str
    build: Callable[[Mapping[str, str]], Kernel]
    switches: tuple[Switch, ...] = ()

    def make(self, chosen: Mapping[str, str] | None = None) -> Kernel:
        """The kernel with these switches set, the others at their defaults.

        Raises:
            InputError: An unknown switch or value; the message lists those that there are.

        """
        known = {switch.name: switch for switch in self.switches}
        for name, value in (chosen or {}).items():
            if name not in known:
                expected = f"{', '.join(known) or 'none'}{nearest(name, known)}"
                raise InputError(f"kernel {self.name}: found switch {name}, expected one of {expected}")
            if value not in known[name].values:
                values = ", ".join(known[name].values)
                near = nearest(value, known[name].values)
                raise InputError(f"kernel {self.name}: switch {name} is {value}, expected one of {values}{near}")
        settings = {name: switch.default for name, switch in known.items()} | dict(chosen or {})
        kernel = self.build(settings)
        texts = {f"switches.{name}": known[name].sources[value] for name, value in settings.items()}
        return replace(kernel, sources={**kernel.sources, **_parsed(self.name, texts)})
