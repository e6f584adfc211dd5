"""Time every engine on a CUDA GPU, and compare its labels with the CPU's and the references.

HEADS is a BIDS dataset of whole heads. REFERENCE is the folder with the outputs of the original
nnU-Net v1 and MD-GRU. Networks of published size have random weights, which cost the same as
trained ones but decide less clearly.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import threading
import time
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import torch

from benchmarks.app import default_model_folder
from benchmarks.common import BIDS_APP, Output, header, image_path, model_version, run, t1w_images
from benchmarks.engines import (
    MDGRU,
    PUBLISHED,
    Cascade,
    NnUNet,
    convert,
    fix_convolutions,
    predict,
    random_weights,
    read_checkpoint,
    read_plans,
    select_weights,
    use_half,
    whiten,
    write_random_model,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from numpy.typing import NDArray

GPU, CPU = torch.device("cuda"), torch.device("cpu")
# What nnU-Net v1 plans for a head of 256 x 256 x 176 voxels on 24 GB, and what a pass multiplies.
PUBLISHED_UNET = (32, 64, 128, 256, 320, 320)
PATCH, PASS_TFLOP, PASSES = (224, 224, 128), 2.92, 320
WINDOWS = {"tiny": ((16, 18, 20), (4, 3, 2)), "mini_gen": ((24,) * 3, (4,) * 3)}
WINDOWS["mni100_gen"] = ((100,) * 3, (20,) * 3)
IMAGES = 100  # of the participant level


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("heads", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))


def main(options: argparse.Namespace) -> int:
    """Print the parts that were asked for; a part that fails does not stop the others."""
    if not torch.cuda.is_available():
        raise SystemExit("No CUDA GPU was found.")
    failed = 0
    with Output(options.out) as out:
        out(*header(model_version(), device=torch.cuda.get_device_name()))
        fix_convolutions(GPU)
        for part in options.only:
            begun = time.perf_counter()
            try:
                PARTS[part](out, options.heads.resolve(), options.reference)
            except Exception:
                out(traceback.format_exc())
                failed += 1
            torch.cuda.empty_cache()
            out(f"({part}: {time.perf_counter() - begun:.0f} s)")
    return int(failed > 0)


def seconds(function: Callable[[], object], times: int = 3) -> float:
    """Median time of a call on the GPU, after one that is not counted."""
    function()
    torch.cuda.synchronize()
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        function()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def compare_references(out: Output, _heads: Path, reference: Path) -> None:
    """Print how the GPU's results differ from the originals'."""
    out("\nreference case       computed in     labels that differ   probabilities within")
    (plans,) = (reference / "nnunet_v1").rglob("plans.pkl")
    with tempfile.TemporaryDirectory() as folder:
        convert(plans.parent, Path(folder) / "v1")
        for case, folds in (("s1mm", None), ("s1x1x35mm", ["0"])):
            image = nib.load(reference / "nnunet_v1" / "inputs" / f"{case}.nii.gz")
            spacing = tuple(float(mm) for mm in reversed(image.header.get_zooms()))
            data = np.asarray(image.dataobj, dtype=np.float32).T
            outputs = reference / "nnunet_v1" / "outputs"
            expected = np.asarray(nib.load(outputs / f"{case}.nii.gz").dataobj).T
            softmax = np.load(outputs / f"{case}.npz")["softmax"].astype(np.float32)
            for half in (False, True):
                network = NnUNet(
                    Path(folder) / "v1",
                    device=GPU,
                    averaging="softmax",
                    mode="v1",
                    folds=folds,
                    half=half,
                )
                found = network.predict(data, spacing)
                labels = network.postprocess(found.argmax(0).astype(np.uint8), spacing)
                print_difference(
                    out, f"nnU-Net {case}", kind(half), labels, expected, abs(found - softmax).max()
                )
    for case, (window, padding) in WINDOWS.items():
        inputs = reference / "mdgru" / case
        weights = reference_weights(inputs)
        image = nib.load(inputs / "T1.nii.gz")
        channels = whiten(np.asarray(image.dataobj, np.float32), image.header.get_zooms()[:3])
        expected = np.asarray(nib.load(inputs / "mdgru-labels.nii.gz").dataobj)
        maps = np.moveaxis(np.asarray(nib.load(inputs / "mdgru-probdist.nii.gz").dataobj), -1, 0)
        for precision in ("float32", "tf32", "bfloat16"):
            mdgru = MDGRU(weights, device=GPU, precision=precision)
            found = predict(mdgru, channels, window, padding, device=GPU)
            print_difference(
                out, f"MD-GRU {case}", precision, found.argmax(0), expected, abs(found - maps).max()
            )


def reference_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of a reference case of MD-GRU."""
    if (calibration := folder / "gen_calibration.json").exists():
        weights = random_weights(PUBLISHED, **json.loads(calibration.read_text()))
    else:
        weights = select_weights(read_checkpoint(next(folder.glob("*.index"))))
    return {name: torch.tensor(weight) for name, weight in weights.items()}


def print_difference(
    out: Output, case: str, way: str, labels: NDArray[Any], expected: NDArray[Any], away: float
) -> None:
    """Print a row of two label maps side by side."""
    differ = np.count_nonzero(labels != expected)
    out(f"{case:<21}{way:<15}{differ:>8,} of {labels.size:>10,}{away:>12.1e}")


def kind(half: bool) -> str:
    """Return the name of a precision."""
    return "float16" if half else "float32"


def read(path: Path) -> tuple[NDArray[Any], tuple[float, ...]]:
    """Read an image: voxels in (z, y, x) order of RAS, and their size in mm, in that order."""
    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj, np.float32).T.copy(), image.header.get_zooms()[2::-1]


def compare_open_model(out: Output, heads: Path, _reference: Path) -> None:
    """Print how the open model's labels on a GPU differ from those on the CPU, and the time."""
    out("\nopen model   float32: labels that differ   float16: labels that differ   volumes within")
    folder = default_model_folder()
    torch.set_num_threads(os.cpu_count() or 1)
    cpu = Cascade(folder, device=CPU)
    gpu = {half: Cascade(folder, device=GPU, half=half) for half in (False, True)}
    for path in t1w_images(heads)[:5]:
        image, spacing = read(path)
        expected = cpu.predict(image, spacing).probabilities.argmax(0)
        sizes = np.bincount(expected.ravel(), minlength=4)[1:]
        row = f"{path.name.split('_')[0]:<13}"
        for network in gpu.values():
            labels = network.predict(image, spacing).probabilities.argmax(0)
            differ = np.count_nonzero(labels != expected)
            row += f"{differ:>10} of {np.count_nonzero(expected):>7,}        "
            change = abs(np.bincount(labels.ravel(), minlength=4)[1:] / sizes - 1).max()
        out(f"{row}{change:>8.3%}")
    for half, network in gpu.items():
        out(f"{kind(half)}: {seconds(partial(network.predict, image, spacing)):.3f} s per head")


def time_run(out: Output, heads: Path, _reference: Path) -> None:
    """Time the participant level on many images, and how busy the GPU is meanwhile."""
    images = t1w_images(heads)
    with tempfile.TemporaryDirectory() as name:
        dataset, output = Path(name) / "bids", Path(name) / "out"
        for number in range(IMAGES):
            # Not links: each copy is read from the disk as an image of its own.
            shutil.copy(images[number % len(images)], image_path(dataset, f"{number:03d}"))
        shutil.copy(heads / "dataset_description.json", dataset)
        words = [dataset, output, "participant", "--skip-bids-validation", "--device", "cuda"]
        busy: list[float] = []
        over = threading.Event()
        watcher = threading.Thread(target=watch, args=(busy, over))
        watcher.start()
        try:
            wall = run([*BIDS_APP, *words]).wall
        finally:
            over.set()
            watcher.join()
        maps = output.glob("sub-*/anat/*_dseg.nii.gz")
        stamps = sorted(path.stat().st_mtime for path in maps)
        steady = (stamps[-1] - stamps[9]) / (len(stamps) - 10)
        out(
            f"\n{len(stamps)} heads by the open model, start to end: {wall:.1f} s, "
            f"{wall / IMAGES:.2f} s per head; from writing the 10th to the last {steady:.2f} s "
            f"per head; GPU busy {np.mean(busy or [0]):.0f} % (mean)"
        )


def watch(busy: list[float], over: threading.Event) -> None:
    """Note how busy the GPU is, five times a second."""
    while not over.wait(0.2):
        try:
            busy.append(torch.cuda.utilization())
        except Exception:
            return


def time_mdgru(out: Output, heads: Path, _reference: Path) -> None:
    """Print the time of windows of the published size, and of a whole head."""
    out(
        "\nMD-GRU, published size: precision, windows at a time, s per window, GiB, "
        "labels unlike the first's"
    )
    image, spacing = read(t1w_images(heads)[0])
    channels = whiten(image.T.copy(), spacing[::-1])
    weights = {name: torch.tensor(w) for name, w in random_weights(PUBLISHED).items()}
    middle = [n // 2 - 50 for n in channels.data.shape[:3]]
    window = channels.data[tuple(slice(max(m, 0), max(m, 0) + 100) for m in middle)].copy()
    first = None
    for precision in ("float32", "tf32", "bfloat16"):
        network = MDGRU(weights, device=GPU, precision=precision)
        for batch in (1, 4, 8):
            data = torch.from_numpy(np.stack([window] * batch)).to(GPU)
            torch.cuda.reset_peak_memory_stats()
            taken = seconds(partial(network, data), 1) / batch
            labels = network(data)[0].argmax(-1).cpu().numpy()
            first = labels if first is None else first
            memory = torch.cuda.max_memory_allocated() / 2**30
            differ = np.count_nonzero(labels != first)
            out(f"{precision:<10}{batch:>3}{taken:>8.3f}{memory:>7.2f}{differ:>8,}")
    sizes = [(0, n) for n in image.shape[::-1]]
    middle = [((a + b) // 2 - 48, (a + b) // 2 + 48) for a, b in sizes]  # as --region asks
    for precision, batch in (("float32", 8), ("tf32", 8)):
        network = MDGRU(weights, device=GPU, precision=precision)
        for title, part in (("whole head", sizes), ("a box of 96 mm", middle)):
            x, y, z = (slice(max(a, 0), b) for a, b in part)
            begun = time.perf_counter()
            predict(
                network, channels, (100,) * 3, (20,) * 3, device=GPU, batch=batch, box=(x, y, z)
            )
            taken = time.perf_counter() - begun
            out(f"{title} of {image.shape[::-1]}, {precision}, {batch} at a time: {taken:.1f} s")


def time_passes(out: Output, _heads: Path, _reference: Path) -> None:
    """Print the time of single passes of two sizes of network, computed in several ways."""
    out("\nnetwork                  way                          images  ms per pass  TFLOP/s")
    small = (24, 48, 96, 160, 192)
    for features, patch in ((PUBLISHED_UNET, PATCH), (small, (96,) * 3)):
        title = f"{features[0]} channels, {'x'.join(map(str, patch))}"
        reference: torch.Tensor | None = None
        for way in ("float32", "autocast", "half", "half, cudnn.benchmark"):
            torch.backends.cudnn.benchmark = "benchmark" in way
            torch.manual_seed(0)
            network = build(features, patch)
            if way.startswith("half"):
                use_half(network)
            for batch in (1, 2) if way in ("autocast", "half") else (1,):
                data = torch.randn(batch, 1, *patch, device=GPU)
                with torch.inference_mode(), torch.autocast("cuda", enabled=way == "autocast"):
                    taken = seconds(partial(network, data), 5) / batch
                    torch.manual_seed(1)
                    output = network(torch.randn(1, 1, *patch, device=GPU))[0].float()
                if reference is None:
                    reference = output
                unlike = (output.argmax(0) != reference.argmax(0)).float().mean().item()
                rate = f"{PASS_TFLOP / taken:>8.0f}" if patch == PATCH else ""
                out(
                    f"{title:<25}{way:<29}{batch:>5}{taken * 1e3:>13.2f}{rate}  "
                    f"unlike {unlike:.4%}",
                )
                del output, data
            del network
            torch.cuda.empty_cache()
    torch.backends.cudnn.benchmark = False


def build(features: tuple[int, ...], patch: tuple[int, ...]) -> torch.nn.Module:
    """Make a network of random weights on the GPU."""
    with tempfile.TemporaryDirectory() as name:
        folder = write_random_model(Path(name), folds=1, patch_size=patch, features=features)
        network = read_plans(folder, "3d_fullres").network().to_empty(device=GPU)
        content = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=True)
        network.load_state_dict(content["network_weights"])
    return network.eval()


def time_head(out: Output, heads: Path, _reference: Path) -> None:
    """Print the time of a head by networks of published size, eight mirrorings each."""
    from scipy import ndimage

    image, spacing = read(t1w_images(heads)[0])
    image = ndimage.zoom(image, spacing, order=1)
    whole = np.zeros((256, 256, 176), np.float32)
    part = tuple(slice(0, min(a, b)) for a, b in zip(image.shape, whole.shape, strict=True))
    whole[part] = image[part]
    whole += 1  # no voxel is empty: nothing is cropped away
    labels = {}
    with tempfile.TemporaryDirectory() as name:
        folder = write_random_model(Path(name), folds=5, patch_size=PATCH, features=PUBLISHED_UNET)
        # In float32 one network is enough to compare labels, at a fifth of the time.
        for half, folds, images in ((True, None, 3), (True, ["0"], 1), (False, ["0"], 1)):
            network = NnUNet(
                folder, device=GPU, averaging="softmax", mode="v1", half=half, folds=folds
            )
            torch.cuda.reset_peak_memory_stats()
            used = 1 if folds else 5
            for number in range(images):
                clock = [time.perf_counter()]
                prepared = network.prepare(whole, (1, 1, 1))
                clock.append(time.perf_counter())
                mean = network.infer(prepared.data).mean
                clock.append(time.perf_counter())
                labels[half] = network.restore(mean, prepared).argmax(0)
                clock.append(time.perf_counter())
                a, b, c = np.diff(clock)
                out(
                    f"published size, 256x256x176, {used} x 8 passes a tile, {kind(half)}, image "
                    f"{number + 1}: prepare {a:.2f}, infer {b:.2f}, restore {c:.2f} s; "
                    f"{PASS_TFLOP * PASSES * used / 5 / b:.0f} TFLOP/s, "
                    f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB",
                )
            del network
            torch.cuda.empty_cache()
    differ = np.count_nonzero(labels[True] != labels[False]) / whole.size
    out(f"labels that differ between float16 and float32: {differ:.4%}")


PARTS: dict[str, Callable[[Output, Path, Path], None]] = {
    "references": compare_references,
    "open": compare_open_model,
    "run": time_run,
    "mdgru": time_mdgru,
    "passes": time_passes,
    "head": time_head,
}
