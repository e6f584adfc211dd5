"""CRC-32C (Castagnoli, RFC 3720 appendix B.4), quick in NumPy alone.

A CRC is linear over the field of two elements, so that parts of a message can be taken side by
side: the message is cut into equal lanes, all lanes advance together four bytes a step, and their
remainders are joined in pairs. Zeros in front of a message change nothing, which makes lanes equal.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # bits reversed, as the CRC is
# The message of four bytes after which a register of zeros is all ones, as a CRC begins.
_ALL_ONES = 0x641F6454
_BITS = np.arange(32, dtype=np.uint32)


def masked_crc32c(data: bytes | memoryview) -> int:
    """Compute the CRC-32C of some bytes in the form that LevelDB and TensorFlow store.

    The form (rotated by 15 bits, plus a constant) guards against CRCs of data that hold CRCs.
    """
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes | memoryview) -> int:
    """Compute the CRC-32C of some bytes.

    Parameters
    ----------
    data : bytes or memoryview
        Of any length. A hundred megabytes take about a second.
    """
    words = -(-len(data) // 4) + 1
    # As many lanes as steps and more: a step costs about the same for up to a thousand lanes.
    lanes = 1 << max((words.bit_length() - 1) // 2 + 1, 0)
    steps = -(-words // lanes)
    padded = np.zeros(lanes * steps * 4, dtype=np.uint8)
    padded[padded.size - len(data) :] = np.frombuffer(data, dtype=np.uint8)
    start = padded.size - len(data) - 4
    padded[start : start + 4] = np.frombuffer(_ALL_ONES.to_bytes(4, "little"), dtype=np.uint8)
    columns = np.ascontiguousarray(padded.view("<u4").reshape(lanes, steps).T)
    low, high = _word_tables()
    register = np.zeros(lanes, dtype=np.uint32)
    for column in columns:
        register ^= column
        register = low[register & 0xFFFF] ^ high[register >> 16]
    while register.size > 1:
        register = _apply(_advance(steps), register[0::2]) ^ register[1::2]
        steps *= 2
    return int(register[0]) ^ 0xFFFFFFFF


def _apply(matrix: NDArray[np.uint32], values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Multiply a matrix over two elements, given by the images of the 32 bits, with values."""
    bits = values[:, None] >> _BITS & np.uint32(1)
    result: NDArray[np.uint32] = np.bitwise_xor.reduce(bits * matrix, axis=1)
    return result


@cache
def _advance(words: int) -> NDArray[np.uint32]:
    """Tell what that many words of zeros, four bytes each, make of each bit of the register."""
    if words > 1:
        half = _advance(words // 2)
        both = _apply(half, half)
        return _apply(_advance(1), both) if words % 2 else both
    register = np.uint32(1) << _BITS
    for _ in range(32):
        register = register >> np.uint32(1) ^ (register & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    return register


@cache
def _word_tables() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Tell what four bytes of zeros make of the register's lower and upper half."""
    halves = np.arange(1 << 16, dtype=np.uint32)
    return _apply(_advance(1), halves), _apply(_advance(1), halves << np.uint32(16))
