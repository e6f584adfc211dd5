"""The network gives what the original MD-GRU gave, however its convolutions are computed."""

import json
import os
import threading
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from make_mdgru_model import SMALL, random_weights

from bids_app.engines.mdgru.inference import predict, taper, whiten, window_starts
from bids_app.engines.mdgru.layout import PUBLISHED, make_layout, select_weights
from bids_app.engines.mdgru.network import MDGRU
from bids_app.engines.threads import fix_convolutions
from bids_app.models.importers.mdgru.checkpoint import read_checkpoint

CPU = torch.device("cpu")
SHARED = Path(os.environ.get("BRAINSTEM_SHARED", Path(__file__).parents[3] / "shared"))
REFERENCE = SHARED / "reference" / "mdgru"
TINY = Path(__file__).parents[2] / "test_data" / "mdgru_tiny"
WINDOWS = {
    "tiny": ((16, 18, 20), (4, 3, 2)),
    "mini_gen": ((24, 24, 24), (4, 4, 4)),
    "mni100_gen": ((100, 100, 100), (20, 20, 20)),
}


def tensors(weights):
    return {name: torch.tensor(weight) for name, weight in weights.items()}


def network(weights=None, **options):
    return MDGRU(tensors(weights or random_weights(SMALL)), device=CPU, **options)


def case_folder(case):
    """Folder of a run of the original; only the small one is part of the project."""
    folder = TINY if case == "tiny" else REFERENCE / case
    if not folder.is_dir():
        pytest.skip(f"no {folder}: outputs of the original")
    return folder


def reference_weights(case):
    folder = case_folder(case)
    if (calibration := folder / "gen_calibration.json").exists():
        return random_weights(PUBLISHED, **json.loads(calibration.read_text()))
    return select_weights(read_checkpoint(next(folder.glob("*.index"))))


@pytest.mark.parametrize("convolution", ["direct", "tiled"])
@pytest.mark.parametrize(
    "case", ["tiny", "mini_gen", pytest.param("mni100_gen", marks=pytest.mark.slow)]
)
def test_reference_mdgru_is_met(case, convolution):
    folder = case_folder(case)
    image = nib.load(folder / "T1.nii.gz")
    channels = whiten(np.asarray(image.dataobj, dtype=np.float32), image.header.get_zooms()[:3])
    mdgru = network(reference_weights(case), convolution=convolution)
    found = predict(mdgru, channels, *WINDOWS[case], device=CPU)

    expected = np.asarray(nib.load(folder / "mdgru-probdist.nii.gz").dataobj)
    labels = np.asarray(nib.load(folder / "mdgru-labels.nii.gz").dataobj)
    differ = int((found.argmax(0) != labels).sum())
    away = float(np.abs(found - np.moveaxis(expected, -1, 0)).max())
    print(f"{case}, {convolution}: {differ} of {labels.size} labels differ, within {away:.1e}")
    assert differ == 0
    assert away < 2e-5


@pytest.fixture
def channels():
    image = np.random.default_rng(0).normal(100, 30, (12, 14, 9)).astype(np.float32)
    return whiten(image, (1, 1, 1))


@pytest.mark.parametrize("filters", [(7, 7), (1, 5), (3, 11)])
def test_tiles_change_nothing_but_the_rounding(channels, filters):
    names = [name for name in SMALL if name.endswith("FilterStat") and "dim2" in name]
    layout = make_layout((2, 3, 2), (3, 2, 4), dict.fromkeys(names, filters))
    found = [
        predict(network(random_weights(layout), convolution=convolution), channels,
                (19, 20, 18), (4, 3, 2), device=CPU)
        for convolution in ("direct", "tiled")
    ]  # fmt: skip
    assert np.abs(found[0] - found[1]).max() < 2e-6


def test_threads_change_nothing(channels):
    before = torch.get_num_threads()
    window = torch.from_numpy(channels.data)[None]
    assert torch.equal(network()(window), network(threads=4)(window))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("convolution", ["direct", "tiled"])
def test_several_windows_at_a_time_give_what_one_gives(channels, convolution):
    options = {"device": CPU, "box": (slice(0, 12), slice(5, 14), slice(0, 9))}
    mdgru = network(convolution=convolution)
    one, three = (
        predict(mdgru, channels, (12, 12, 9), (4, 4, 3), batch=batch, **options) for batch in (1, 3)
    )
    assert np.abs(one - three).max() < 1e-6


def test_windows_are_run_one_at_a_time_where_memory_is_too_small(channels, caplog):
    class Small(MDGRU):
        def __call__(self, windows, progress):
            if len(windows) > 1:
                raise torch.OutOfMemoryError
            return super().__call__(windows, progress)

    small, found = Small(tensors(random_weights(SMALL)), device=CPU), []
    for mdgru, batch in ((network(), 1), (small, 4)):
        found.append(predict(mdgru, channels, (16,) * 3, (4,) * 3, device=CPU, batch=batch))
    assert np.array_equal(*found)
    assert "one at a time" in caplog.text


@pytest.mark.parametrize(("precision", "tf32"), [("float32", False), ("tf32", True)])
def test_tf32_is_used_only_where_asked_for(monkeypatch, precision, tf32):
    on_gpu = partial(fix_convolutions, torch.device("cuda"))
    monkeypatch.setattr(
        "bids_app.engines.mdgru.network.fix_convolutions",
        lambda _device, **options: on_gpu(**options),
    )
    with torch.backends.cudnn.flags(enabled=True):  # puts back what is set here
        network(precision=precision)
        assert torch.backends.cudnn.enabled
        assert torch.backends.cudnn.deterministic
        assert torch.backends.cudnn.allow_tf32 is tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_windows_that_do_not_touch_the_box_change_nothing_in_it(channels):
    window, padding = (12, 12, 9), (4, 4, 3)
    box = (slice(0, 3), slice(5, 12), slice(0, 9))
    numbers = set()
    whole = predict(network(), channels, window, padding, device=CPU)
    part = predict(network(), channels, window, padding, device=CPU, box=box,
                   progress=lambda _, total: numbers.add(total))  # fmt: skip
    assert np.array_equal(part, whole[:, 0:3, 5:12, 0:9])
    assert numbers == {1 * 2 * 2}  # of 2 * 3 * 2


def test_progress_adds_up_to_the_windows(channels):
    shares = []
    predict(network(), channels, (16, 16, 16), (4, 4, 4), device=CPU, batch=3,
            progress=lambda share, total: shares.append((share, total)))  # fmt: skip
    assert {total for _, total in shares} == {2 * 2 * 2}
    assert sum(share for share, _ in shares) == pytest.approx(8)


@pytest.mark.parametrize("threads", [1, 2])
def test_what_the_progress_raises_ends_the_work(channels, threads):
    def end(_share):
        raise KeyboardInterrupt

    running = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        network(threads=threads)(torch.from_numpy(channels.data)[None], end)
    assert threading.active_count() == running


@pytest.mark.parametrize(("size", "window", "padding"), [(27, 16, 4), (182, 100, 20), (5, 24, 4)])
def test_windows_cover_every_voxel(size, window, padding):
    covered = np.zeros(size)
    for start in window_starts(size, window, padding):
        covered[max(start, 0) : start + window] += 1
    assert covered.min() >= 1


def test_windows_taper_where_they_overlap():
    assert np.allclose(taper(9, 3), [1 / 3, 7 / 12, 5 / 6, 1, 1, 1, 5 / 6, 7 / 12, 1 / 3])
    assert np.array_equal(taper(4, 0), np.ones(4))


def test_both_channels_are_whitened_over_the_whole_image(channels):
    assert np.allclose(channels.data.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    assert np.allclose(channels.data.std(axis=(0, 1, 2)), 1, atol=1e-5)
