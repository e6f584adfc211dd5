"""CRC-32C (Castagnoli, RFC 3720 appendix B.4), fast with NumPy alone.

A CRC is linear over the field of two elements, so that parts of a message can be processed in
parallel. The message is cut into lanes of equal length, which all advance four bytes per step, and
their remainders are then combined in pairs. Zeros before a message change nothing; they pad it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # bits reversed, as the CRC is
# Message of four bytes that sets a register of zeros to all ones, the initial value of a CRC.
_ALL_ONES = 0x641F6454
_BITS = np.arange(32, dtype=np.uint32)


def masked_crc32c(data: bytes | memoryview) -> int:
    """Compute the masked CRC-32C, as LevelDB and TensorFlow store it.

    Masking (rotation by 15 bits, plus a constant) avoids problems with data that contain CRCs.
    """
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes | memoryview) -> int:
    """Compute the CRC-32C of bytes.

    Parameters
    ----------
    data : bytes or memoryview
        A hundred megabytes take about a second.
    """
    words = -(-len(data) // 4) + 1
    # At least as many lanes as steps: a step costs about the same for up to a thousand lanes.
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
    """Multiply values with a matrix over two elements, given by the images of the 32 bits."""
    bits = values[:, None] >> _BITS & np.uint32(1)
    result: NDArray[np.uint32] = np.bitwise_xor.reduce(bits * matrix, axis=1)
    return result


@cache
def _advance(words: int) -> NDArray[np.uint32]:
    """Compute the effect of words of zeros (four bytes each) on each bit of the register."""
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
    """Tabulate the effect of four zero bytes on the register's lower and upper half."""
    halves = np.arange(1 << 16, dtype=np.uint32)
    return _apply(_advance(1), halves), _apply(_advance(1), halves << np.uint32(16))
