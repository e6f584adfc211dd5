"""TensorFlow checkpoints are read byte for byte, or refused with one line that says why."""

import random
from pathlib import Path

import numpy as np
import pytest
from make_mdgru_model import (
    SMALL,
    entry_bytes,
    header_bytes,
    random_weights,
    table_bytes,
    with_slots,
    write_checkpoint,
)

from bids_app.engines.mdgru.layout import PUBLISHED, select_weights
from bids_app.errors import ModelError
from bids_app.models.importers.mdgru.checkpoint import read_checkpoint
from bids_app.models.importers.mdgru.crc32c import crc32c

DAMAGED = 300


@pytest.fixture(scope="module")
def tensors():
    return with_slots(random_weights(SMALL))


@pytest.fixture(scope="module")
def original(tmp_path_factory, tensors):
    return write_checkpoint(tmp_path_factory.mktemp("original"), tensors)


def files(index):
    return {path.name: path.read_bytes() for path in sorted(index.parent.iterdir())}


def put(folder, content):
    folder.mkdir(exist_ok=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return folder / "model_1.index"


def read_weights(index):
    return select_weights(read_checkpoint(index))


def refused(function, *arguments, match):
    with pytest.raises(ModelError, match=match) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)


def test_the_crc_is_that_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0


def test_the_crc_of_any_length_is_that_of_the_bits_one_by_one():
    for size in [*range(40), 1000, 4097]:
        data = random.Random(size).randbytes(size)
        register = 0xFFFFFFFF
        for byte in data:
            register ^= byte
            for _ in range(8):
                register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
        assert crc32c(data) == register ^ 0xFFFFFFFF


def test_tensors_come_back_as_they_were_written(original, tensors):
    read = read_checkpoint(original)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert np.array_equal(read[name], tensor)


def test_tensors_may_lie_in_several_shards(tmp_path, tensors):
    read = read_checkpoint(write_checkpoint(tmp_path, tensors, shards=3))
    assert all(np.array_equal(read[name], tensor) for name, tensor in tensors.items())


def test_the_weights_are_those_of_the_network_alone(original):
    assert {name: w.shape for name, w in read_weights(original).items()} == SMALL


def test_the_published_layout_has_114_variables_and_eight_million_numbers():
    assert len(PUBLISHED) == 114
    assert sum(int(np.prod(shape)) for shape in PUBLISHED.values()) == 8_019_802


def test_300_damaged_checkpoints_are_refused(original, tmp_path):
    """Cut, lengthened, with flipped bits, bytes, zeroed or swapped stretches, or a file lost."""
    whole = files(original)
    for seed in range(DAMAGED):
        dice = random.Random(seed)
        content = dict(whole)
        name = dice.choice(sorted(content))
        data = bytearray(content[name])
        at, other = sorted(dice.sample(range(len(data)), 2))
        kind = seed % 7
        if kind == 0:
            del data[at:]
        elif kind == 1:
            data += dice.randbytes(dice.randint(1, 100))
        elif kind == 2:
            data[at] ^= 1 << dice.randrange(8)
        elif kind == 3:
            data[at:other] = dice.randbytes(other - at)
        elif kind == 4:
            del data[at:other]
        elif kind == 5:
            data[at] = (data[at] + dice.randint(1, 255)) % 256
        content[name] = bytes(data)
        folder = tmp_path / f"{seed}"
        if kind == 6:
            del content[name]
        refused(read_weights, put(folder, content), match=str(folder))


def test_compressed_blocks_are_refused_by_name(tmp_path):
    index = put(tmp_path, {"model_1.index": table_bytes({b"": b""}, compression=1)})
    refused(read_checkpoint, index, match="snappy")


EIGHT = bytes(8)
HEADER = {b"": header_bytes(1)}


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({}, "0 shards"),
        ({b"": header_bytes(1, endianness=1)}, "big-endian"),
        (HEADER | {b"a": entry_bytes(1, (2,), 1, 0, EIGHT)}, "tensors in a shard 1, of 1"),
        (HEADER | {b"a": entry_bytes(14, (4,), 0, 0, EIGHT)}, "type 14"),
        (HEADER | {b"a": entry_bytes(1, (3,), 0, 0, EIGHT)}, r"shape \(3,\) in 8 bytes"),
        (HEADER | {b"a": entry_bytes(1, (2**63, 2), 0, 0, EIGHT)}, "in 8 bytes"),
        (
            HEADER
            | {
                b"a": entry_bytes(1, (2,), 0, 0, EIGHT),
                b"b": entry_bytes(1, (0, 2**64 - 1), 0, 8, b""),
            },
            "Maximum|too large",
        ),
        (HEADER | {b"a": entry_bytes(1, (2,), 0, 1, EIGHT)}, "does not follow"),
        (HEADER | {name: entry_bytes(1, (2,), 0, 0, EIGHT) for name in (b"a", b"b")}, "8 bytes"),
        (HEADER | {b"a": entry_bytes(1, (2,), 0, 0, b"12345678")}, "wrong checksum of a"),
        (HEADER | {b"\xff": entry_bytes(1, (2,), 0, 0, EIGHT)}, "utf-8"),
        (HEADER | {b"a": b"\xff" * 12}, "does not end"),
    ],
)
def test_an_index_with_right_checksums_but_wrong_content_is_refused(tmp_path, table, reason):
    put(tmp_path, {"model_1.data-00000-of-00001": EIGHT})
    index = put(tmp_path, {"model_1.index": table_bytes(table)})
    refused(read_checkpoint, index, match=reason)


def first(weights, ending):
    return next(name for name in weights if name.endswith(ending))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: w.pop("2/W"), "lacks the variable 2/W"),
        (lambda w: w.pop(first(w, "Gates/Bias")), "lacks the variable 1/mdgru/dim1/forward"),
        (lambda w: w.update({"4/W": w["1/W"]}), "an unknown variable 4/W"),
        (lambda w: w.update({"1/b": w["1/b"][:-1]}), "1/b has the shape"),
        (lambda w: w.update({"1/W": w["1/W"][..., :-1]}), "has the shape"),
        (lambda w: w.update({"1/b": w["1/b"] * np.float32(np.nan)}), "not finite float32"),
        (lambda w: w.update({"1/b": w["1/b"].astype(np.float64)}), "not finite float32"),
        (
            lambda w: w.update({k: v[:6] for k, v in w.items() if k.endswith("FilterStat")}),
            "even size",
        ),
    ],
)
def test_a_network_that_is_not_whole_is_refused(tmp_path, change, reason):
    weights = random_weights(SMALL)
    change(weights)
    refused(read_weights, write_checkpoint(tmp_path, with_slots(weights)), match=reason)


def test_two_networks_in_a_checkpoint_are_refused(tmp_path, tensors):
    both = tensors | with_slots(random_weights(SMALL), network="other")
    refused(read_weights, write_checkpoint(tmp_path, both), match="2 networks")


def test_a_slot_of_another_shape_is_refused(tmp_path, tensors):
    wrong = tensors | {"default/default/1/b/Adadelta": np.zeros(9, np.float32)}
    refused(read_weights, write_checkpoint(tmp_path, wrong), match="belongs to no weight")


def test_another_layout_than_the_one_expected_is_refused(tensors):
    refused(select_weights, tensors, PUBLISHED, match="has the shape")


def test_a_folder_that_is_not_there_is_reported(tmp_path):
    refused(read_checkpoint, Path(tmp_path / "none.index"), match="missing")
