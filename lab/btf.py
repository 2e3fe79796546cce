"""Where members of structures lie, from the type data (BTF) that a kernel's image carries.

Contract: reads bzImage (compressed with xz, gzip or zstd) and plain vmlinux; offsets are in bits, because flags are bit
fields. Format: Documentation/bpf/btf.rst in the kernel's sources.
"""

from __future__ import annotations

import lzma
import shutil
import struct
import subprocess
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from lab.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

ELF_MAGIC: Final = b"\x7fELF"
SECTION_HEADER: Final = struct.Struct("<IIQQQQIIQQ")

KIND_ARRAY, KIND_STRUCT, KIND_UNION, KIND_ENUM, KIND_FUNC_PROTO, KIND_DATASEC = 3, 4, 5, 6, 13, 15
KIND_INT, KIND_VAR, KIND_DECL_TAG, KIND_ENUM64 = 1, 14, 17, 19
# typedef, volatile, const, restrict, type tag: they only point at another type.
KINDS_OF_NAMES: Final = frozenset((8, 9, 10, 11, 18))
BYTES_AFTER: Final = {KIND_INT: 4, KIND_ARRAY: 12, KIND_VAR: 4, KIND_DECL_TAG: 4}
BYTES_EACH: Final = {KIND_ENUM: 8, KIND_FUNC_PROTO: 8, KIND_DATASEC: 12, KIND_ENUM64: 12}


def _unzstd(data: bytes) -> bytes:
    if shutil.which("zstd") is None:
        raise LabError("found a kernel image compressed with zstd, expected the program zstd to be installed")
    # What follows the compressed kernel in the image is no error of ours: the exit status says nothing.
    return subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=False).stdout  # noqa: S607


def _gunzip(data: bytes) -> bytes:
    return zlib.decompressobj(31).decompress(data)


def _unxz(data: bytes) -> bytes:
    return lzma.LZMADecompressor().decompress(data)


_COMPRESSIONS: Final = ((b"\xfd7zXZ\x00", _unxz), (b"\x1f\x8b\x08", _gunzip), (b"\x28\xb5\x2f\xfd", _unzstd))


def vmlinux(image: Path) -> bytes:
    """The ELF file inside a kernel's image.

    Raises:
        LabError: there is none.
    """
    data = image.read_bytes()
    if data.startswith(ELF_MAGIC):
        return data
    for magic, decompress in _COMPRESSIONS:
        start = data.find(magic)
        while start >= 0:
            try:
                found = decompress(data[start:])
            except (lzma.LZMAError, zlib.error, EOFError):
                found = b""
            if found.startswith(ELF_MAGIC):
                return found
            start = data.find(magic, start + 1)
    raise LabError(f"{image}: found no kernel compressed with xz, gzip or zstd, expected a bzImage or vmlinux")


def _section(elf: bytes, wanted: bytes) -> bytes | None:
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    entry_bytes, nr_entries, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [SECTION_HEADER.unpack_from(elf, table + index * entry_bytes) for index in range(nr_entries)]
    names = headers[names_index][4]
    for header in headers:
        start = names + header[0]
        if elf[start : elf.index(b"\0", start)] == wanted:
            return elf[header[4] : header[4] + header[5]]
    return None


@dataclass(slots=True)
class _Type:
    name: str
    kind: int
    refers_to: int
    # name, type, offset in bits
    members: list[tuple[str, int, int]] = field(default_factory=list)


class Types:
    """All types of one kernel."""

    def __init__(self, btf: bytes, name: str) -> None:
        self.name = name
        self._types = [_Type("void", 0, 0)]
        self._read(btf)
        structs = (kind for kind in self._types if kind.kind == KIND_STRUCT and kind.members)
        # The first of a name: later ones are private to some driver.
        self._structs: dict[str, _Type] = {}
        for kind in structs:
            self._structs.setdefault(kind.name, kind)

    @classmethod
    def of_image(cls, image: Path) -> Types:
        """Reads the types of a kernel's image.

        Raises:
            LabError: it carries none.
        """
        btf = _section(vmlinux(image), b".BTF")
        if btf is None:
            raise LabError(f"{image}: found no section .BTF, expected a kernel built with CONFIG_DEBUG_INFO_BTF")
        return cls(btf, str(image))

    def _read(self, btf: bytes) -> None:
        header_bytes, types_start, types_bytes, strings_start, strings_bytes = struct.unpack_from("<IIIII", btf, 4)
        start = header_bytes + strings_start
        strings = btf[start : start + strings_bytes]

        def text(offset: int) -> str:
            return strings[offset : strings.index(b"\0", offset)].decode()

        place = header_bytes + types_start
        end = place + types_bytes
        while place < end:
            name, info, size_or_type = struct.unpack_from("<III", btf, place)
            place += 12
            nr_members, kind, bit_fields = info & 0xFFFF, info >> 24 & 0x1F, info >> 31
            found = _Type(text(name), kind, size_or_type)
            if kind in {KIND_STRUCT, KIND_UNION}:
                for _ in range(nr_members):
                    member, member_type, offset = struct.unpack_from("<III", btf, place)
                    found.members.append((text(member), member_type, offset & 0xFFFFFF if bit_fields else offset))
                    place += 12
            place += BYTES_AFTER.get(kind, 0) + BYTES_EACH.get(kind, 0) * nr_members
            self._types.append(found)

    def bit_offset(self, struct_name: str, *members: str) -> int | None:
        """Bits before a member, the first of the given names that the structure has; nothing if it has none."""
        found = self._structs.get(struct_name)
        for member in members:
            if found is not None and (offset := self._find(found, member)) is not None:
                return offset
        return None

    def byte_offset(self, struct_name: str, *members: str) -> int:
        """Bytes before a member.

        Raises:
            LabError: the kernel has no such structure or member.
        """
        offset = self.bit_offset(struct_name, *members)
        if offset is None:
            raise LabError(f"{self.name}: found no {struct_name}.{members[0]} in its type data, expected one to probe")
        return offset // 8

    def _find(self, within: _Type, wanted: str) -> int | None:
        for name, index, offset in within.members:
            if name == wanted:
                return offset
            if name:
                continue
            inner = self._types[index]
            while inner.kind in KINDS_OF_NAMES:
                inner = self._types[inner.refers_to]
            found = self._find(inner, wanted)
            if found is not None:
                return offset + found
        return None
