"""Write TensorFlow checkpoints of MD-GRU networks, as `tf.train.Saver` lays them out on disk."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_app.engines.mdgru.layout import make_layout
from bids_app.models.importers.mdgru.crc32c import masked_crc32c

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_TYPES = {np.dtype("f4"): 1, np.dtype("f8"): 2, np.dtype("i4"): 3, np.dtype("i8"): 9}
_MAGIC = 0xDB4775248B80FB57
SMALL = make_layout((2, 3, 2), (3, 2, 4))


def random_weights(
    layout: Mapping[str, tuple[int, ...]],
    last_gain: Any = 1.0,
    last_offset: Any = 0.0,
) -> dict[str, NDArray[np.float32]]:
    """Draw weights that keep activations of the order of 1, each from a seed of its name.

    Parameters
    ----------
    layout : mapping of str to tuple of int
        Shapes by name.
    last_gain, last_offset : float or sequence of float
        What the last linear map is multiplied with, and its bias.
    """
    weights = {}
    for name, shape in layout.items():
        values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
        if name.endswith(("FilterInp", "FilterStat")):
            height, width, inputs, outputs = shape
            values = values * np.sqrt(1.3 / (height * width * (inputs + outputs) / 2))
        elif name.endswith("Bias"):
            values = 0.3 * values + (1 if "/Gates/" in name else 0)
        elif name.endswith("W"):
            values = values * 2 * np.sqrt(1.3 / ((shape[1] + shape[2]) / 2))
        else:
            values = 0.2 * values
        weights[name] = values.astype(np.float32)
    weights["3/W"] *= np.float32(last_gain)
    weights["3/b"] = np.broadcast_to(np.float32(last_offset), weights["3/b"].shape)
    return weights


def with_slots(
    weights: Mapping[str, NDArray[np.float32]], network: str = "default"
) -> dict[str, NDArray[Any]]:
    """Name weights as a training does, and add the optimiser's variables."""
    tensors: dict[str, NDArray[Any]] = {f"{network}/global_step": np.int32(140000).reshape(())}
    for name, weight in weights.items():
        tensors[f"{network}/{name}"] = weight
        for slot in ("Adadelta", "Adadelta_1"):
            tensors[f"{network}/{network}/{name}/{slot}"] = np.full_like(weight, 0.456)
    return tensors


def write_checkpoint(
    folder: Path, tensors: Mapping[str, NDArray[Any]], *, stem: str = "model_1", shards: int = 1
) -> Path:
    """Write a checkpoint; give back its index.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    tensors : mapping of str to ndarray
        By name.
    stem : str
        Of the files.
    shards : int
        Tensors go to one after the other in turn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = [bytearray() for _ in range(shards)]
    table = {b"": header_bytes(shards)}
    for number, (name, tensor) in enumerate(sorted(tensors.items())):
        shard = number % shards
        content = np.ascontiguousarray(tensor).tobytes()
        table[name.encode()] = entry_bytes(
            _TYPES[tensor.dtype], tensor.shape, shard, len(data[shard]), content
        )
        data[shard] += content
    for shard, content in enumerate(data):
        (folder / f"{stem}.data-{shard:05}-of-{shards:05}").write_bytes(content)
    index = folder / f"{stem}.index"
    index.write_bytes(table_bytes(table))
    return index


def header_bytes(shards: int, endianness: int = 0) -> bytes:
    """Write a checkpoint's header, the value of the empty name."""
    return _field(1, shards) + _field(2, endianness) + _field(3, _field(1, 1))


def entry_bytes(type_: int, shape: Sequence[int], shard: int, offset: int, content: bytes) -> bytes:
    """Write where a tensor lies, and what it is: the value of its name."""
    sizes = b"".join(_field(2, _field(1, size)) for size in shape)
    place = _field(3, shard) + _field(4, offset) + _field(5, len(content))
    crc = bytes([6 << 3 | 5]) + masked_crc32c(content).to_bytes(4, "little")
    return _field(1, type_) + _field(2, sizes) + place + crc


def table_bytes(
    table: Mapping[bytes, bytes], *, compression: int = 0, per_block: int = 100
) -> bytes:
    """Write a sorted table (LevelDB), some entries a block; `compression` is only claimed."""
    content, pointers = b"", {}
    items = sorted(table.items())
    for start in range(0, len(items), per_block):
        part = dict(items[start : start + per_block])
        block = _block(part, compression)
        pointers[max(part)] = _varint(len(content)) + _varint(len(block) - 5)
        content += block
    footer = b""
    for block in (_block({}, compression), _block(pointers, compression)):
        footer += _varint(len(content)) + _varint(len(block) - 5)
        content += block
    return content + footer.ljust(40, b"\0") + _MAGIC.to_bytes(8, "little")


def _block(entries: Mapping[bytes, bytes], compression: int) -> bytes:
    block, before = b"", b""
    for key, value in entries.items():
        shared = 0
        while shared < min(len(key), len(before)) and key[shared] == before[shared]:
            shared += 1
        block += _varint(shared) + _varint(len(key) - shared) + _varint(len(value))
        block += key[shared:] + value
        before = key
    block += (0).to_bytes(4, "little") + (1).to_bytes(4, "little") + bytes([compression])
    return block + masked_crc32c(block).to_bytes(4, "little")


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
