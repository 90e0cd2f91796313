"""Protocol buffers as they lie in a file: numbered fields, without any schema.

Nothing is copied and nothing is followed: a field that holds another message is a view
of its bytes, to be read by whoever knows what it is.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

WIDTHS = {FIXED64: 8, FIXED32: 4}

LONGEST_VARINT = 10


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the content of each field of a message.

    Numbers of varying length come as `int`, everything else as a view of its bytes.

    Raises
    ------
    ValueError
        If the bytes are no whole message; the message says where.
    """
    position = 0
    while position < len(data):
        start = position
        key, position = varint(data, position)
        kind = key & 7
        if not key >> 3:
            raise ValueError(f"field 0 at byte {start}")
        if kind == VARINT:
            number, position = varint(data, position)
            yield key >> 3, number
            continue
        if kind == BYTES:
            length, position = varint(data, position)
        elif kind in WIDTHS:
            length = WIDTHS[kind]
        else:
            raise ValueError(f"a field of kind {kind} at byte {start}")
        if length > len(data) - position:
            raise ValueError(
                f"the field at byte {start} has {len(data) - position} bytes, "
                f"wanted {length}"
            )
        yield key >> 3, data[position : position + length]
        position += length


def varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return a number of varying length, and where it ends.

    Raises
    ------
    ValueError
        If it does not end within the data or ten bytes.
    """
    value = 0
    for index in range(LONGEST_VARINT):
        if position + index >= len(data):
            break
        byte = data[position + index]
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, position + index + 1
    raise ValueError(f"the number at byte {position} does not end")


def varints(data: memoryview) -> Iterator[int]:
    """Yield the numbers of a packed field; raise `ValueError` as `varint` does."""
    position = 0
    while position < len(data):
        value, position = varint(data, position)
        yield value


def signed(value: int) -> int:
    """Return a number of varying length as a signed one of 64 bits."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
