"""TensorFlow checkpoints of format V2 ("tensor bundles"), read in NumPy.

``PREFIX.index`` is a sorted table in LevelDB format. It maps the name of each tensor to a message
with its type, shape and position in a shard. ``PREFIX.data-00000-of-00001`` (a shard) holds the
bytes of the tensors, one after the other. Every block of the table and every tensor has a CRC-32C.
In addition, blocks must fill the table and tensors the shards without gaps, so that every byte of a
checkpoint is checked.

Formats: ``leveldb/doc/table_format.md``, ``tensorflow/core/protobuf/tensor_bundle.proto``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_app.errors import ModelError
from bids_app.io.files import read_bytes, status
from bids_app.models.importers.mdgru.crc32c import masked_crc32c
from bids_app.models.importers.mdgru.protobuf import content, fields, integer, read_varint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_FOOTER, _TRAILER = 48, 5
_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_COMPRESSIONS = {1: "snappy", 2: "zstd"}
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 6: "i1", 9: "<i8", 10: "?"}
_LARGEST_INDEX = 2**26  # bytes; the published network's has less than 20,000


@dataclass(frozen=True)
class _Entry:
    """Type, shape and position of a tensor."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def read_checkpoint(index: Path) -> dict[str, NDArray[Any]]:
    """Read all tensors of a checkpoint.

    Parameters
    ----------
    index : Path
        ``PREFIX.index``, beside the shards.

    Returns
    -------
    dict of str to ndarray
        Tensors by name, with their stored shapes.

    Raises
    ------
    ModelError
        A file is missing or damaged, or uses a feature that is not supported.
    """
    path = index
    try:
        size = status(index).st_size
        if size > _LARGEST_INDEX:
            raise ValueError(f"{size} bytes are too many for an index")  # noqa: TRY301
        table = dict(_read_table(read_bytes(index)))
        shards = _read_header(table.pop(b"", b""))
        entries = {name.decode(): _read_entry(value) for name, value in table.items()}
        unknown = {entry.shard for entry in entries.values()} - set(range(shards))
        if unknown:
            raise ValueError(f"tensors in a shard {min(unknown)}, of {shards}")  # noqa: TRY301
        tensors: dict[str, NDArray[Any]] = {}
        for number in range(shards):
            path = index.with_name(f"{index.stem}.data-{number:05}-of-{shards:05}")
            tensors |= _read_shard(
                path, {name: e for name, e in entries.items() if e.shard == number}
            )
    except FileNotFoundError:
        beside = sorted(other.name for other in index.parent.glob("*.index") if other != index)
        hint = f" There is {', '.join(beside)}." if beside else ""
        raise ModelError(
            f"{path.name} is missing in {path.parent}; the checkpoint needs it.{hint}"
        ) from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}).") from None
    except (ValueError, OverflowError) as error:  # also of text that is not UTF-8
        raise ModelError(
            f"{path}: damaged, or not a TensorFlow checkpoint ({error}). Get the file again."
        ) from None
    return tensors


def _read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Read the keys and values of a sorted table, in order."""
    if len(data) < _FOOTER or not data.endswith(_MAGIC):
        raise ValueError("it does not end like an index")
    footer = data[-_FOOTER : -len(_MAGIC)]
    meta, at = _read_handle(footer, 0)
    root, at = _read_handle(footer, at)
    if any(footer[at:]):
        raise ValueError("wrong bytes in the footer")
    blocks = [_read_handle(value, 0)[0] for _, value in _read_block(data, *root)]
    end = 0
    for offset, size in [*blocks, meta, root]:
        if offset != end:
            raise ValueError("blocks do not follow one another")
        end = offset + size + _TRAILER
    if end != len(data) - _FOOTER:
        raise ValueError("blocks do not fill the file")
    if list(_read_block(data, *meta)):
        raise ValueError("it has a filter, unlike any checkpoint")
    last = None
    for block in blocks:
        for key, value in _read_block(data, *block):
            if last is not None and key <= last:
                raise ValueError("names out of order")
            yield key, value
            last = key


def _read_handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (offset, size), at


def _read_block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Read a block, in which keys share a prefix with the key before."""
    if offset + size + _TRAILER > len(data):
        raise ValueError("a block lies outside the file")
    block = data[offset : offset + size]
    trailer = data[offset + size : offset + size + _TRAILER]
    if masked_crc32c(block + trailer[:1]) != int.from_bytes(trailer[1:], "little"):
        raise ValueError("wrong checksum of a block")
    if trailer[0]:
        kind = _COMPRESSIONS.get(trailer[0], f"unknown, {trailer[0]}")
        raise ValueError(f"its blocks are compressed ({kind}), which TensorFlow does not do")
    restarts = int.from_bytes(block[-4:], "little")
    end = size - 4 * (restarts + 1)
    if end < 0:
        raise ValueError("a block is cut short")
    at, key = 0, b""
    while at < end:
        shared, at = read_varint(block, at)
        added, at = read_varint(block, at)
        length, at = read_varint(block, at)
        if shared > len(key) or at + added + length > end:
            raise ValueError("an entry runs over its block")
        key = key[:shared] + block[at : at + added]
        at += added
        yield key, block[at : at + length]
        at += length


def _read_header(message: bytes) -> int:
    """Read the number of shards (BundleHeaderProto)."""
    header = dict(fields(message))
    shards, big_endian = integer(header.get(1, 0)), integer(header.get(2, 0))
    version = dict(fields(content(header.get(3, b""))))
    if big_endian or integer(version.get(2, 0)) > 1:
        raise ValueError("big-endian, or of a later format")
    if not 1 <= shards < 100_000:
        raise ValueError(f"{shards} shards")
    return shards


def _read_entry(message: bytes) -> _Entry:
    """Read the entry of a tensor (BundleEntryProto)."""
    values: dict[int, int | bytes] = {}
    for number, value in fields(message):
        if number == 7:
            raise ValueError("a tensor in slices")
        values[number] = value
    code = integer(values.get(1, 0))
    if code not in _TYPES:
        raise ValueError(f"a tensor of the type {code}")
    dtype = np.dtype(_TYPES[code])
    shape = []
    for number, value in fields(content(values.get(2, b""))):
        if number != 2:
            raise ValueError("a tensor of unknown shape")
        shape.append(integer(dict(fields(content(value))).get(1, 0)))
    shard, offset, size, crc = (integer(values.get(number, 0)) for number in (3, 4, 5, 6))
    if size != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"a tensor of shape {tuple(shape)} in {size} bytes")
    return _Entry(dtype, tuple(shape), shard, offset, size, crc)


def _read_shard(path: Path, entries: dict[str, _Entry]) -> dict[str, NDArray[Any]]:
    """Read the tensors of one shard, which must fill it."""
    expected = sum(entry.size for entry in entries.values())
    found = status(path).st_size
    if found != expected:
        raise ValueError(f"{found} bytes where the index says {expected}")
    data = read_bytes(path)
    tensors: dict[str, NDArray[Any]] = {}
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].size)):
        if entry.offset != end:
            raise ValueError(f"{name} does not follow on the tensor before")
        end += entry.size
        part = memoryview(data)[entry.offset : end]
        if masked_crc32c(part) != entry.crc:
            raise ValueError(f"wrong checksum of {name}")
        tensors[name] = np.frombuffer(part, dtype=entry.dtype).reshape(entry.shape)
    return tensors
