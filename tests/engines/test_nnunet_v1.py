"""In mode v1 the engine gives what nnU-Net v1 gave, voxel for voxel."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from make_v1_model import V1Network, write_v1_model

from bids_app.engines.nnunet.inference import NnUNet
from bids_app.engines.nnunet.plans import read_plans
from bids_app.engines.nnunet.postprocessing import LargestComponent, postprocess
from bids_app.engines.nnunet.weights import fill, read_checkpoint
from bids_app.errors import ModelError
from bids_app.models.importers.nnunet_v1.convert import convert_postprocessing
from bids_app.models.importers.nnunet_v1.importer import convert

CPU = torch.device("cpu")
SHARED = Path(os.environ.get("BRAINSTEM_SHARED", Path(__file__).parents[3] / "shared"))
REFERENCE = SHARED / "reference" / "nnunet_v1"


def engine(folder, **options):
    return NnUNet(folder, device=CPU, averaging="softmax", mode="v1", **options)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"no {REFERENCE}: outputs of the original")
@pytest.mark.parametrize(("case", "folds"), [("s1mm", None), ("s1x1x35mm", ["0"])])
def test_reference_v1_is_met_in_every_voxel(tmp_path, case, folds):
    (plans,) = REFERENCE.rglob("plans.pkl")
    convert(plans.parent, tmp_path / "model")
    image = nib.load(REFERENCE / "inputs" / f"{case}.nii.gz")
    spacing = tuple(float(mm) for mm in reversed(image.header.get_zooms()))
    network = engine(tmp_path / "model", folds=folds)
    found = network.predict(np.asarray(image.dataobj, dtype=np.float32).T, spacing)
    labels = network.postprocess(found.argmax(0).astype(np.uint8), spacing)

    expected = np.asarray(nib.load(REFERENCE / "outputs" / f"{case}.nii.gz").dataobj).T
    softmax = np.load(REFERENCE / "outputs" / f"{case}.npz")["softmax"].astype(np.float32)
    differ, away = (labels != expected).sum(), np.abs(found - softmax).max()
    print(f"{case}: {differ} of {labels.size} voxels differ, softmax within {away:.1e}")
    assert differ == 0
    assert away < 5e-4


@pytest.mark.parametrize(
    ("base", "pools", "size", "convolutions"),
    [
        (2, [(2, 2, 2)], (8, 8, 8), 2),
        (4, [(2, 2, 2), (1, 2, 2)], (8, 16, 12), 2),
        (3, [(2, 2, 2), (2, 2, 2)], (8, 8, 16), 3),
        pytest.param(32, [(2, 2, 2)] * 5, (32, 32, 64), 2, id="published size"),
    ],
)
def test_the_imported_network_is_the_original_one(tmp_path, base, pools, size, convolutions):
    options = {"base": base, "pools": pools, "patch_size": size, "convolutions": convolutions}
    source = write_v1_model(tmp_path / "v1", seed=3, **options)
    convert(source, tmp_path / "v2")
    content = torch.load(source / "fold_0" / "model_final_checkpoint.model", weights_only=True)
    original = V1Network(base, pools, 4, convolutions).eval()
    original.load_state_dict(content["state_dict"])
    checkpoint = read_checkpoint(tmp_path / "v2" / "fold_0" / "checkpoint_final.pth")
    network = read_plans(tmp_path / "v2", checkpoint.configuration).network()
    imported = fill(network, checkpoint.weights)
    image = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(imported(image), original(image))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("v1")
    convert(write_v1_model(place / "v1", folds=2), place / "v2")
    return place / "v2"


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(100, 30, (10, 12, 9)).astype(np.float32)


def test_intensities_are_scored_after_resampling(folder, image):
    prepared = engine(folder).prepare(image, (1.5, 1.5, 1.5))
    assert prepared.data.shape[1:] == (15, 18, 14)
    assert prepared.data.mean() == pytest.approx(0, abs=1e-5)
    assert prepared.data.std() == pytest.approx(1, abs=1e-5)


def test_what_is_no_number_counts_as_zero(folder, image):
    holes = np.arange(image.size).reshape(image.shape) % 7 == 3
    network = engine(folder)
    with_nan = network.prepare(np.where(holes, np.nan, image), (1, 1, 1)).data
    assert np.array_equal(with_nan, network.prepare(np.where(holes, 0, image), (1, 1, 1)).data)


def test_within_nonzero_the_outside_is_zero_after_resampling(tmp_path, image):
    source = write_v1_model(tmp_path / "v1", plans={"use_mask_for_norm": {0: True}})
    convert(source, tmp_path / "v2")
    image[:5, :6] = 0
    data = engine(tmp_path / "v2").prepare(image, (2, 2, 2)).data[0]
    assert np.all(data[:8, :10] == 0)
    assert data[data != 0].std() == pytest.approx(1, abs=0.01)


def test_softmax_is_what_mode_v1_averages(folder):
    with pytest.raises(ModelError, match="mode v1 requires averaging"):
        NnUNet(folder, device=CPU, averaging="logits", mode="v1")


def test_the_stock_predictor_loads_an_imported_model(folder):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    nnUNetPredictor(device=CPU).initialize_from_trained_model_folder(str(folder), None)


def blocks():
    """Label 1: 8, 8 and 1 voxels; label 2: 4 voxels beside the 1, and 2 elsewhere."""
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[:2, :2, :2] = labels[6:8, 6:8, 6:8] = labels[4, 0, 0] = 1
    labels[4, 1:5, 0] = labels[0, 7:9, 8] = 2
    return labels


@pytest.mark.parametrize(
    ("steps", "sizes"),
    [
        ([], (17, 6)),
        ([LargestComponent((1,))], (16, 6)),
        ([LargestComponent((1,)), LargestComponent((2,))], (16, 4)),
        ([LargestComponent((1, 2))], (16, 0)),
        ([LargestComponent((1, 2), spare_mm3=40.0)], (17, 4)),
        ([LargestComponent((3,))], (17, 6)),
    ],
)
def test_the_largest_components_stay(steps, sizes):
    labels = blocks()
    kept = postprocess(labels, (2, 2, 2), steps)
    assert ((kept == 1).sum(), (kept == 2).sum()) == sizes
    assert np.array_equal(labels, blocks())


def test_postprocessing_is_read_as_nnunet_v1_wrote_it():
    v1 = {"for_which_classes": [[1, 2, 3], 2], "min_valid_object_sizes": "{(1, 2, 3): 9.5, 2: 4.0}"}
    assert convert_postprocessing(v1) == [
        LargestComponent((1, 2, 3), 9.5),
        LargestComponent((2,), 4.0),
    ]
