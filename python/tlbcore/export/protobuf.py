"""The few forms of Protocol Buffers that a trace needs: varints, fixed 64 bits, texts and messages."""

from __future__ import annotations

import struct

__all__ = ["fixed64", "integer", "message", "text"]

_VARINT, _FIXED64, _BYTES = 0, 1, 2


def _varint(value: int) -> bytes:
    value &= 2**64 - 1  # a negative number is its two's complement
    out = bytearray()
    while value > 127:  # noqa: PLR2004  # seven bits a byte
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer(field: int, value: int) -> bytes:
    """A field of type int32, int64, uint32, uint64, bool or enum."""
    return _varint(field << 3 | _VARINT) + _varint(value)


def fixed64(field: int, value: int) -> bytes:
    """A field of type fixed64."""
    return _varint(field << 3 | _FIXED64) + struct.pack("<Q", value)


def message(field: int, *parts: bytes) -> bytes:
    """A field that holds a message, given as its fields."""
    body = b"".join(parts)
    return _varint(field << 3 | _BYTES) + _varint(len(body)) + body


def text(field: int, value: str) -> bytes:
    """A field of type string."""
    return message(field, value.encode("utf-8", "replace"))
