"""Time every engine on a CUDA GPU, and set its labels beside those of the CPU and the references.

    python benchmarks/gpu.py HEADS REFERENCE [--only PART ...] > benchmarks/gpu.txt

HEADS is a BIDS dataset of whole heads, REFERENCE the folder with the outputs of the original
nnU-Net v1 and MD-GRU. Networks of published size have random weights, which cost the same as
trained ones and decide less sharply.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / "test_data"), str(REPOSITORY)]

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from make_fixture_model import write_random_model  # noqa: E402
from make_mdgru_model import random_weights  # noqa: E402

from bids_app.engines.mdgru.inference import predict, whiten  # noqa: E402
from bids_app.engines.mdgru.layout import PUBLISHED, select_weights  # noqa: E402
from bids_app.engines.mdgru.network import MDGRU  # noqa: E402
from bids_app.engines.nnunet.cascade import Cascade  # noqa: E402
from bids_app.engines.nnunet.gpu import use_half  # noqa: E402
from bids_app.engines.nnunet.inference import NnUNet  # noqa: E402
from bids_app.engines.threads import fix_convolutions  # noqa: E402
from bids_app.models import store  # noqa: E402
from bids_app.models.importers.mdgru.checkpoint import read_checkpoint  # noqa: E402
from bids_app.models.importers.nnunet_v1.importer import convert  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

GPU, CPU = torch.device("cuda"), torch.device("cpu")
# What nnU-Net v1 plans for a head of 256 x 256 x 176 voxels on 24 GB, and what a pass multiplies.
PUBLISHED_UNET = (32, 64, 128, 256, 320, 320)
PATCH, PASS_TFLOP, PASSES = (224, 224, 128), 2.92, 320
WINDOWS = {"tiny": ((16, 18, 20), (4, 3, 2)), "mini_gen": ((24,) * 3, (4,) * 3)}
WINDOWS["mni100_gen"] = ((100,) * 3, (20,) * 3)


def main() -> None:
    """Print the machine and the parts that were asked for."""
    parts: dict[str, Callable[[Path, Path], None]] = {
        "references": references,
        "open": open_model,
        "run": run,
        "mdgru": mdgru,
        "passes": passes,
        "head": head,
    }
    parser = argparse.ArgumentParser()
    parser.add_argument("heads", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    chosen = parser.parse_args()
    name = torch.cuda.get_device_name()
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {name}, {os.cpu_count()} cores, torch {torch.__version__}"
    )
    fix_convolutions(GPU)
    for part in chosen.only:
        begun = time.perf_counter()
        try:
            parts[part](chosen.heads, chosen.reference)
        except Exception:
            traceback.print_exc(file=sys.stdout)
        torch.cuda.empty_cache()
        print(f"({part}: {time.perf_counter() - begun:.0f} s)", flush=True)


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


def references(_heads: Path, reference: Path) -> None:
    """Print how the GPU's results differ from the originals'."""
    print("\nreference case       computed in     labels that differ   probabilities within")
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
                tell(f"nnU-Net {case}", kind(half), labels, expected, abs(found - softmax).max())
    for case, (window, padding) in WINDOWS.items():
        folder = reference / "mdgru" / case
        weights = reference_weights(folder)
        image = nib.load(folder / "T1.nii.gz")
        channels = whiten(np.asarray(image.dataobj, np.float32), image.header.get_zooms()[:3])
        expected = np.asarray(nib.load(folder / "mdgru-labels.nii.gz").dataobj)
        maps = np.moveaxis(np.asarray(nib.load(folder / "mdgru-probdist.nii.gz").dataobj), -1, 0)
        for precision in ("float32", "tf32", "bfloat16"):
            network = MDGRU(weights, device=GPU, precision=precision)
            found = predict(network, channels, window, padding, device=GPU)
            tell(f"MD-GRU {case}", precision, found.argmax(0), expected, abs(found - maps).max())


def reference_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of a reference case of MD-GRU."""
    if (calibration := folder / "gen_calibration.json").exists():
        weights = random_weights(PUBLISHED, **json.loads(calibration.read_text()))
    else:
        weights = select_weights(read_checkpoint(next(folder.glob("*.index"))))
    return {name: torch.tensor(weight) for name, weight in weights.items()}


def tell(case: str, way: str, labels: np.ndarray, expected: np.ndarray, away: float) -> None:
    """Print a row of two label maps side by side."""
    differ = np.count_nonzero(labels != expected)
    print(f"{case:<21}{way:<15}{differ:>8,} of {labels.size:>10,}{away:>12.1e}", flush=True)


def kind(half: bool) -> str:
    """Name a precision."""
    return "float16" if half else "float32"


def heads_of(heads: Path) -> list[Path]:
    """Images of a dataset."""
    return sorted(heads.glob("sub-*/anat/*_T1w.nii.gz"))


def read(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Voxels of an image in (z, y, x) order of RAS, and their size."""
    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj, np.float32).T.copy(), image.header.get_zooms()[2::-1]


def open_model(heads: Path, _reference: Path) -> None:
    """Print how the open model's labels on a GPU differ from those on the CPU, and the time."""
    print(
        "\nopen model   float32: labels that differ   float16: labels that differ   volumes within"
    )
    folder = store.find(store.DEFAULT).folder
    torch.set_num_threads(os.cpu_count() or 1)
    cpu = Cascade(folder, device=CPU)
    gpu = {half: Cascade(folder, device=GPU, half=half) for half in (False, True)}
    for path in heads_of(heads)[:5]:
        image, spacing = read(path)
        expected = cpu.predict(image, spacing).probabilities.argmax(0)
        sizes = np.bincount(expected.ravel(), minlength=4)[1:]
        row = f"{path.name.split('_')[0]:<13}"
        for network in gpu.values():
            labels = network.predict(image, spacing).probabilities.argmax(0)
            differ = np.count_nonzero(labels != expected)
            row += f"{differ:>10} of {np.count_nonzero(expected):>7,}        "
            change = abs(np.bincount(labels.ravel(), minlength=4)[1:] / sizes - 1).max()
        print(f"{row}{change:>8.3%}", flush=True)
    for half, network in gpu.items():
        print(f"{kind(half)}: {seconds(lambda n=network: n.predict(image, spacing)):.3f} s a head")


def run(heads: Path, _reference: Path) -> None:
    """Print the time of the participant level on many images, and how busy the GPU was."""
    images = heads_of(heads)
    with tempfile.TemporaryDirectory() as name:
        dataset = Path(name) / "bids"
        for number in range(100):
            place = dataset / f"sub-{number:03d}" / "anat"
            place.mkdir(parents=True)
            source = images[number % len(images)]
            os.link(
                shutil.copy(source, Path(name) / f"{number}"),
                place / f"sub-{number:03d}_T1w.nii.gz",
            )
        shutil.copy(heads / "dataset_description.json", dataset)
        command = [sys.executable, "-m", "bids_app", str(dataset), f"{name}/out", "participant"]
        command += ["--skip-bids-validation", "--device", "cuda"]
        busy: list[float] = []
        over = threading.Event()
        watcher = threading.Thread(target=watch, args=(busy, over))
        watcher.start()
        begun = time.perf_counter()
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - begun
        over.set()
        watcher.join()
        if done.returncode:
            print(done.stdout[-1500:], done.stderr[-1500:])
        times = sorted(Path(name, "out").glob("sub-*/anat/*_dseg.nii.gz"))
        stamps = sorted(path.stat().st_mtime for path in times)
        steady = (stamps[-1] - stamps[9]) / (len(stamps) - 10) if len(stamps) > 20 else float("nan")
        print(
            f"\n{len(stamps)} heads by the open model, start to end: {wall:.1f} s, "
            f"{wall / 100:.2f} s a head; between writing the 10th and the last {steady:.2f} s; "
            f"GPU busy {np.mean(busy or [0]):.0f} % (mean)"
        )


def watch(busy: list[float], over: threading.Event) -> None:
    """Note how busy the GPU is, five times a second."""
    while not over.wait(0.2):
        try:
            busy.append(torch.cuda.utilization())
        except Exception:
            return


def mdgru(heads: Path, _reference: Path) -> None:
    """Print the time of windows of the published size, and of a whole head."""
    print(
        "\nMD-GRU, published size: precision, windows at a time, s a window, GiB, "
        "labels unlike the first's"
    )
    image, spacing = read(heads_of(heads)[0])
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
            taken = seconds(lambda n=network, d=data: n(d), 1) / batch
            labels = network(data)[0].argmax(-1).cpu().numpy()
            first = labels if first is None else first
            memory = torch.cuda.max_memory_allocated() / 2**30
            differ = np.count_nonzero(labels != first)
            print(f"{precision:<10}{batch:>3}{taken:>8.3f}{memory:>7.2f}{differ:>8,}", flush=True)
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
            print(f"{title} of {image.shape[::-1]}, {precision}, {batch} at a time: {taken:.1f} s")


def passes(_heads: Path, _reference: Path) -> None:
    """Print the time of single passes of two sizes of network, computed in several ways."""
    print("\nnetwork                  way                          images  ms a pass  TFLOP/s")
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
                data = torch.randn(batch, 1, *patch, device=GPU, generator=None)
                with torch.inference_mode(), torch.autocast("cuda", enabled=way == "autocast"):
                    taken = seconds(lambda n=network, d=data: n(d), 5) / batch
                    torch.manual_seed(1)
                    output = network(torch.randn(1, 1, *patch, device=GPU))[0].float()
                if reference is None:
                    reference = output
                unlike = (output.argmax(0) != reference.argmax(0)).float().mean().item()
                rate = f"{PASS_TFLOP / taken:>8.0f}" if patch == PATCH else ""
                print(
                    f"{title:<25}{way:<29}{batch:>5}{taken * 1e3:>11.2f}{rate}  "
                    f"unlike {unlike:.4%}",
                    flush=True,
                )
                del output, data
            del network
            torch.cuda.empty_cache()
    torch.backends.cudnn.benchmark = False


def build(features: tuple[int, ...], patch: tuple[int, ...]) -> torch.nn.Module:
    """Make a network of random weights on the GPU."""
    from bids_app.engines.nnunet.plans import read_plans

    with tempfile.TemporaryDirectory() as name:
        folder = write_random_model(Path(name), folds=1, patch_size=patch, features=features)
        network = read_plans(folder, "3d_fullres").network().to_empty(device=GPU)
        content = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=True)
        network.load_state_dict(content["network_weights"])
    return network.eval()


def head(heads: Path, _reference: Path) -> None:
    """Print the time of a head by networks of published size, eight mirrorings each."""
    from scipy import ndimage

    image, spacing = read(heads_of(heads)[0])
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
                mean = network.infer(prepared).mean
                clock.append(time.perf_counter())
                labels[half] = network.restore(mean, prepared).argmax(0)
                clock.append(time.perf_counter())
                a, b, c = np.diff(clock)
                print(
                    f"published size, 256x256x176, {used} x 8 passes a tile, {kind(half)}, image "
                    f"{number + 1}: prepare {a:.2f}, infer {b:.2f}, restore {c:.2f} s; "
                    f"{PASS_TFLOP * PASSES * used / 5 / b:.0f} TFLOP/s, "
                    f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB",
                    flush=True,
                )
            del network
            torch.cuda.empty_cache()
    differ = np.count_nonzero(labels[True] != labels[False]) / whole.size
    print(f"labels that differ between float16 and float32: {differ:.4%}")


if __name__ == "__main__":
    main()
