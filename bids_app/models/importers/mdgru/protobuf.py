"""The parts of the protocol buffer wire format that TensorFlow's files use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number with seven bits per byte, lowest first.

    Returns
    -------
    value, at : int
        The number, and the position after it.

    Raises
    ------
    ValueError
        The number does not end, or has more than 64 bits.
    """
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number does not end")


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Read the fields of a message in stored order.

    Yields
    ------
    number : int
        Of the field.
    value : int or bytes
        Bytes for texts, messages and packed numbers, otherwise an integer.

    Raises
    ------
    ValueError
        The message is damaged.
    """
    at = 0
    while at < len(message):
        key, at = read_varint(message, at)
        number, kind = key >> 3, key & 7
        value: int | bytes
        if kind == _VARINT:
            value, at = read_varint(message, at)
        else:
            if kind == _BYTES:
                size, at = read_varint(message, at)
            elif kind in (_FIXED32, _FIXED64):
                size = 4 if kind == _FIXED32 else 8
            else:
                raise ValueError(f"a field of the unknown kind {kind}")
            part = message[at : at + size]
            if len(part) != size:
                raise ValueError("a field is cut short")
            at += size
            value = part if kind == _BYTES else int.from_bytes(part, "little")
        yield number, value


def integer(value: int | bytes) -> int:
    """Check that the value of a field is a number."""
    if isinstance(value, bytes):
        raise ValueError("bytes where a number belongs")  # noqa: TRY004 - damage, not misuse
    return value


def content(value: int | bytes) -> bytes:
    """Check that the value of a field is bytes."""
    if not isinstance(value, bytes):
        raise ValueError("a number where bytes belong")  # noqa: TRY004 - damage, not misuse
    return value
