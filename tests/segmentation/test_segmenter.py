"""Between volumes and MD-GRU: axes, labels by either rule, the box around the brainstem."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from make_datasets import head
from make_mdgru_model import SMALL, random_weights, with_slots, write_checkpoint

from bids_app.engines.mdgru import network
from bids_app.engines.nnunet import inference
from bids_app.io.images import label_image, read_volume
from bids_app.models.install import import_model
from bids_app.models.manifest import MANIFEST, manifest_text, read_manifest
from bids_app.segmentation import adapters
from bids_app.segmentation.devices import all_gpus
from bids_app.segmentation.segmenter import load_segmenter
from bids_app.segmentation.types import InferenceOptions

COARSE = (4.0, 3.0, 3.5)
# Of an image of 84 mm. For so few channels direct convolutions are the quicker ones.
TWO_WINDOWS = {"window": [60, 90, 90], "padding": [10, 2, 2], "convolution": "direct"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    weights = random_weights(SMALL, last_gain=3.0)
    folder = write_checkpoint(tmp_path_factory.mktemp("checkpoint"), with_slots(weights)).parent
    return import_model(folder, "small", tmp_path_factory.mktemp("models"))


def with_settings(model, folder, **inference):
    """Another model folder of the same weights."""
    folder.mkdir()
    (folder / "weights.pth").symlink_to(model.folder / "weights.pth")
    settings = dict(model.inference) | inference
    (folder / MANIFEST).write_text(manifest_text(replace(model, inference=settings)))
    return read_manifest(folder)


def crop(image, edge_mm=84.0):
    """The middle of an image."""
    spacing = image.header.get_zooms()[:3]
    sizes = [int(np.ceil(edge_mm / edge)) for edge in spacing]
    starts = [(n - size) // 2 for n, size in zip(image.shape, sizes, strict=True)]
    return image.slicer[*(slice(a, a + n) for a, n in zip(starts, sizes, strict=True))]


def volume_of(image, folder, name="image"):
    nib.save(image, folder / f"{name}.nii.gz")
    return read_volume(folder / f"{name}.nii.gz")


@pytest.mark.parametrize("axes", ["LAS", "PIR"])
def test_the_order_of_stored_axes_changes_nothing(model, tmp_path, axes):
    small = with_settings(model, tmp_path / "m", **TWO_WINDOWS)
    segmenter = load_segmenter(small, InferenceOptions(device="cpu"))
    upright = crop(head(voxel_size=COARSE, grid_degrees=(10, 5, -8)))
    order = nib.orientations.axcodes2ornt(axes)
    turn = nib.orientations.ornt_transform(nib.io_orientation(upright.affine), order)
    other = upright.as_reoriented(turn)
    maps = []
    for name, image in (("upright", upright), ("other", other)):
        volume = volume_of(image, tmp_path, name)
        maps.append(label_image(segmenter(volume).labels, volume.grid))
    assert np.allclose(maps[1].affine, other.affine, atol=1e-4)
    back = maps[1].as_reoriented(
        nib.orientations.ornt_transform(order, nib.io_orientation(upright.affine))
    )
    labels = np.asarray(maps[0].dataobj)
    assert labels.shape == upright.shape
    assert len(np.unique(labels)) > 1
    assert np.array_equal(labels, np.asarray(back.dataobj))


def test_labels_follow_the_highest_probability_or_the_published_threshold(model, tmp_path):
    volume = volume_of(crop(head(voxel_size=COARSE)), tmp_path)
    found = {}
    for rule in ("argmax", "threshold"):
        changed = with_settings(model, tmp_path / rule, labels=rule, **TWO_WINDOWS)
        found[rule] = load_segmenter(changed, InferenceOptions(device="cpu"))(volume)
    maps = found["argmax"].probabilities
    assert np.array_equal(maps, found["threshold"].probabilities)
    highest = np.where(maps.max(0) > 1 - maps.sum(0), maps.argmax(0) + 1, 0)
    assert np.mean(found["argmax"].labels == highest) > 0.999  # a spline's sum is not quite 1
    expected = np.zeros(volume.data.shape, np.uint8)
    for value, map_ in enumerate(maps, start=1):
        expected[map_ >= 0.5] = value
    assert np.array_equal(found["threshold"].labels, expected)
    holes = (expected == 0) & (found["argmax"].labels > 0)
    assert holes.any()


def test_an_image_near_one_millimetre_has_the_highest_label_by_either_rule(model, tmp_path):
    image = crop(head(voxel_size=1.2), edge_mm=81)
    volume = volume_of(image, tmp_path)
    labels = [
        load_segmenter(
            with_settings(model, tmp_path / rule, labels=rule, **TWO_WINDOWS),
            InferenceOptions(device="cpu"),
        )(volume).labels
        for rule in ("argmax", "threshold")
    ]
    assert np.array_equal(*labels)


def test_a_region_is_that_of_the_brainstem_and_runs_fewer_windows(model, tmp_path, monkeypatch):
    small = with_settings(model, tmp_path / "m", window=[60] * 3, padding=[10] * 3)
    totals = []

    class Counted(adapters.Progress):
        def add(self, share, total):
            totals.append(total)

    monkeypatch.setattr(adapters, "Progress", Counted)
    volume = volume_of(head(voxel_size=3), tmp_path)
    found = load_segmenter(small, InferenceOptions(device="cpu", region=True))(volume)
    sizes = [(part.stop - part.start) * 3 for part in found.box]
    assert sizes == [78, 78, 96]
    outside = found.labels.copy()
    outside[found.box] = 0
    assert not outside.any()
    assert len(set(totals)) == 1
    assert (
        totals[0] <= 27
    )  # a box of 95 mm touches three windows of 60 along an axis; 4 x 5 x 4 all


def test_a_check_that_raises_ends_the_segmentation(model, tmp_path):
    def stop():
        raise KeyboardInterrupt

    small = with_settings(model, tmp_path / "m", window=[60] * 3)
    segmenter = load_segmenter(small, InferenceOptions(device="cpu", check=stop))
    with pytest.raises(KeyboardInterrupt):
        segmenter(volume_of(crop(head(voxel_size=COARSE)), tmp_path))


def test_a_gpu_without_a_number_stands_for_all_that_are_seen(monkeypatch):
    cuda, second = torch.device("cuda"), torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert all_gpus(cuda) == [cuda]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert all_gpus(cuda) == [torch.device("cuda:0"), second]
    assert all_gpus(second) == [second]


def test_the_localizer_leaves_a_model_its_tf32(model, tmp_path, monkeypatch):
    changed = with_settings(model, tmp_path / "m", convolution="direct", precision="tf32")
    asked = []
    for engine in (network, inference):
        monkeypatch.setattr(
            engine, "fix_convolutions", lambda _device, tf32=False: asked.append(tf32)
        )
    load_segmenter(changed, InferenceOptions(device="cpu", region=True))
    assert asked[-1]
    assert not all(asked)
