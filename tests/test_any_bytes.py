"""Readers of files that others made give what is in them or a reason, whatever the bytes are.

``make test`` tries some examples, always the same; ``make fuzz`` BRAINSTEM_FUZZ times ten of each.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import pickletools
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from make_datasets import head
from make_mdgru_model import entry_bytes, header_bytes, table_bytes
from strategies import damaged, odd_image

from bids_app.errors import ImageError, ModelError
from bids_app.io.images import read_label_map, read_volume
from bids_app.models.importers.mdgru.checkpoint import read_checkpoint
from bids_app.models.importers.nnunet_v1.unpickle import read_pickle

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = 10 * int(os.environ.get("BRAINSTEM_FUZZ", "0"))


def examples(short: int) -> Any:
    return settings(
        max_examples=EXAMPLES or short,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bytes")


def one_line(error: Exception) -> None:
    assert "\n" not in str(error)
    event(str(error).partition(":")[2][:30])


IMAGE = nib.Nifti1Image(
    np.asarray(head(voxel_size=8).dataobj), head(voxel_size=8).affine
).to_bytes()


@given(odd_image(IMAGE) | damaged(IMAGE), st.booleans())
@examples(60)
def test_any_image(folder: Path, content: bytes, zipped: bool) -> None:
    path = folder / ("T1w.nii.gz" if zipped else "T1w.nii")
    path.write_bytes(content)
    try:
        volume = read_volume(path)
        assert np.isfinite(volume.data).all()
    except ImageError as error:
        one_line(error)
    try:
        labels, affine = read_label_map(path)
        assert labels.ndim == 3
        assert np.isfinite(affine).all()
    except ImageError as error:
        one_line(error)


TENSOR = np.arange(6, dtype=np.float32).tobytes()
TABLE = {
    b"": header_bytes(1),
    b"net/a": entry_bytes(1, (2, 3), 0, 0, TENSOR),
    b"net/b": entry_bytes(1, (6,), 0, len(TENSOR), TENSOR),
}


@st.composite
def indexes(draw: st.DrawFn) -> bytes:
    """Indexes with odd entries under the right checksums, or damaged as they lie."""
    if draw(st.booleans()):
        return draw(damaged(table_bytes(TABLE)))
    table = {
        name: draw(damaged(value, 2)) if draw(st.booleans()) else value
        for name, value in TABLE.items()
    }
    return table_bytes(table | draw(st.dictionaries(st.binary(max_size=4), st.binary(max_size=30))))


@given(indexes())
@examples(100)
def test_any_index_of_a_checkpoint(folder: Path, index: bytes) -> None:
    (folder / "model.index").write_bytes(index)
    (folder / "model.data-00000-of-00001").write_bytes(2 * TENSOR)
    try:
        tensors = read_checkpoint(folder / "model.index")
        assert sum(tensor.nbytes for tensor in tensors.values()) <= 2 * len(TENSOR)
    except ModelError as error:
        one_line(error)


PLANS = OrderedDict(
    num_classes=3,
    spacing=np.array([1.0, 2.0, 3.0]),
    sizes=[np.int64(3), np.float32(0.5), np.array([[1, 2], [3, 4]])],
    objects=np.array([[1, "a"], None, (2,)], dtype=object),
    text="a\u00e9",
    flag=None,
)
# All operations of pickle, some with arguments, which damage would seldom hit upon.
OPERATIONS = [code.code.encode("latin-1") for code in pickletools.opcodes]


class Touch:
    """Would run code when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


@st.composite
def pickles(draw: st.DrawFn) -> bytes:
    if draw(st.integers(0, 3)) == 0:
        parts = st.sampled_from(OPERATIONS) | st.binary(max_size=6)
        return b"\x80\x04" + b"".join(draw(st.lists(parts, max_size=25))) + b"."
    content = draw(st.sampled_from([PLANS, Touch(), [PLANS, Touch()], {"a": eval}]))
    return draw(damaged(pickle.dumps(content, draw(st.integers(0, 5)))))


@given(pickles())
@examples(150)
def test_any_pickle(folder: Path, content: bytes) -> None:
    path = folder / "plans.pkl"
    path.write_bytes(content)
    try:
        with contextlib.chdir(folder):
            read_pickle(path)
    except ModelError as error:
        one_line(error)
    assert not (folder / "ran").exists(), "code of a pickle was run"
