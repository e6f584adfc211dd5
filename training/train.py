"""Train one network of the open model.

``python -m training.train {locator,segmenter} --data FILE --out DIR --minutes 70``

The same command goes on where an interrupted run stopped. `DIR` gets ``checkpoint.pth``,
``log.csv`` and, with matplotlib at hand, ``curves.png``.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from zlib import crc32

import numpy as np
import torch

from bids_app.cli.options import guarded, positive
from bids_app.errors import UsageError, listing, reason
from bids_app.io.files import replacing
from bids_app.workflow.interrupt import stoppable
from training.augment import draw_patch
from training.cases import IGNORE, NOT_STEM, load_cases, read_split
from training.head import fit_last_layer
from training.loss import cut_pair, disagreement, loss_of
from training.networks import LOOKS, build_network
from training.patches import Drawing, drawn_ahead
from training.weights import RUN_FILE, add_parts, look_of, read_exported, read_run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from training.cases import Case
    from training.networks import Look
    from training.patches import Batch


# Part of a segmenter's run on boxes of five sixths of the patch, which are 1.7 times faster.
SMALL_SHARE = 0.55
MOST_STAGES = 6  # a box of 64 voxels is halved five times, to 2
COLUMNS = ("step", "seconds", "loss", "dice", "cases")  # of the log
LEARNING_RATE, WARM_UP_STEPS, EMA_DECAY = 1e-3, 50, 0.995
FITTED_STEPS = 8  # whose patches the last layer is fitted to where classes are new
RARE, RARE_UNTIL = 0.3, 0.7  # weight of `loss_of`, falling to nothing at this part of a run
SAVE_EVERY_S, VALIDATE_EVERY_S = 180.0, 600.0


@dataclass(frozen=True)
class Plan:
    """How long a run lasts and what it starts from.

    Attributes
    ----------
    steps : int or None
        Number of steps; None leaves the end to `minutes`.
    minutes : float or None
        Wall-clock time of training, summed over interruptions.
    batch : int
        Patches a step; the segmenter's come in pairs.
    seed : int
        Seed of weights and patches.
    small : float
        Part of a segmenter's run, from its start, on boxes cut from the patches.
    rate : float
        Learning rate after the warm-up.
    """

    steps: int | None
    minutes: float | None
    batch: int
    seed: int
    small: float = SMALL_SHARE
    rate: float = LEARNING_RATE

    def progress(self, step: int, seconds: float) -> float:
        """Return how much of the run is done, from 0 to 1."""
        by_step = step / self.steps if self.steps else 0.0
        by_time = seconds / 60 / self.minutes if self.minutes else 0.0
        return min(1.0, max(by_step, by_time))


def computes_in_bfloat16(device: torch.device) -> bool:
    """Tell whether mixed precision pays: CUDA, and CPUs with instructions for bfloat16.

    With AVX512-BF16 a step takes a third of the time; without it, many times as long.
    """
    if device.type != "cpu":
        return device.type == "cuda"
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # of torch 2.9 and newer
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


@torch.no_grad()
def validate(
    network: torch.nn.Module, cases: list[Case], look: Look, device: torch.device
) -> dict[str, list[float]]:
    """Return the Dice of every class but the background on the plain patch of each case.

    Voxels set aside in the labels are left out; a class that the labels lack is nan.
    """
    network.eval()
    scores: dict[str, list[float]] = {}
    for case in cases:
        torch.manual_seed(0)
        image, target = draw_patch(case, look, None, device)
        found = network(image[None, None])[0].argmax(0)
        scores[case.name] = []
        for index in range(1, len(look.classes)):
            known = target != IGNORE
            if index not in look.stem:
                known &= target != NOT_STEM
            a, b = (found == index) & known, (target == index) & known
            both = int(a.sum() + b.sum())
            scores[case.name].append(2 * int((a & b).sum()) / both if b.any() else float("nan"))
    network.train()
    return scores


def draw_curves(folder: Path) -> None:
    """Draw loss and Dice from ``log.csv``; nothing without matplotlib."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError:
        return
    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    left.plot([int(r["step"]) for r in rows], [float(r["loss"]) for r in rows])
    left.set(xlabel="step", ylabel="loss (mean since the last row)")
    scored = [r for r in rows if r["dice"]]
    right.plot([int(r["step"]) for r in scored], [float(r["dice"]) for r in scored], "o-")
    right.set(xlabel="step", ylabel="mean Dice on the validation cases", ylim=(0, 1))
    figure.tight_layout()
    figure.savefig(folder / "curves.png", dpi=100)
    plt.close(figure)


def make_folder(out: Path) -> None:
    """Make the folder of a run."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out} cannot be made: {reason(error)}.") from error


class Run:
    """A network under training, with its average and its optimiser.

    Parameters
    ----------
    look : Look
        Which network.
    device : torch.device
        Where; in mixed precision where `computes_in_bfloat16`.

    Attributes
    ----------
    average : torch.nn.Module
        The network of averaged weights, which is what is exported.
    step : int
        How many steps were made.
    """

    def __init__(self, look: Look, device: torch.device) -> None:
        self._look, self._device = look, device
        self._mixed = computes_in_bfloat16(device)
        self._network = build_network(look).to(device)
        self.average = build_network(look).to(device).requires_grad_(requires_grad=False)
        self.begin_with(self._network.state_dict())
        # On a CPU, convolutions are a third faster with the channels last.
        self._network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._optimiser = torch.optim.AdamW(
            self._network.parameters(), lr=LEARNING_RATE, weight_decay=1e-2
        )
        self.step = 0

    def begin_with(self, weights: dict[str, torch.Tensor]) -> None:
        """Take weights to start from."""
        self._network.load_state_dict(weights)
        self.average.load_state_dict(weights)

    def learn(self, batch: Batch, rate: float, rare: float = 0.0) -> float:
        """Make a step at a learning rate, and return the loss (`rare` as for `loss_of`)."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._mixed):
            logits = self._network(batch.images[:, None])
        loss = loss_of(logits, batch.targets, self._look, rare)
        if batch.shifts is not None:
            pairs = len(batch.shifts)
            for index, places in enumerate(batch.places()):
                pair = slice(2 * index, 2 * index + 2)
                seen = batch.images[pair] != 0
                cut = cut_pair(logits[pair], places[None], seen, batch.targets[pair])
                apart = disagreement(*cut, self._look)
                loss = loss + apart / pairs
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), 12)
        self._optimiser.step()
        self.step += 1
        keep = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            both = zip(self.average.parameters(), self._network.parameters(), strict=True)
            for kept, fresh in both:
                kept.lerp_(fresh, 1 - keep)
        return loss.item()

    def fit_last_layer(self, batches: list[Batch]) -> None:
        """Fit the last layer to classes that are new to it (`training.head`)."""
        whole = [batch.to(self._device) for batch in batches]
        patches = [pair for b in whole for pair in zip(b.images, b.targets, strict=True)]
        fit_last_layer(self._network, patches)
        self.average.load_state_dict(self._network.state_dict())

    def state(self) -> dict[str, Any]:
        """Return all that `go_on_from` needs."""
        return {
            "network": self._network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "step": self.step,
        }

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Take up a run where it was kept."""
        self._network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]


def checksum(arrays: Iterable[NDArray[Any]]) -> int:
    """Tell arrays from others (CRC-32)."""
    crc = 0
    for array in arrays:
        crc = crc32(array.tobytes(), crc)
    return crc


def continue_log(path: Path, step: int) -> TextIO:
    """Open the log to add rows to; those of steps that were not kept, and are made again, go."""
    rows: list[list[str]] = []
    if path.exists():
        with path.open(newline="") as file:
            rows = [r for r in csv.reader(file) if r[0].isdigit() and int(r[0]) <= step]
    log = path.open("w", newline="")
    csv.writer(log).writerows([COLUMNS, *rows])
    return log


def train(
    look: Look,
    cases: dict[str, Case],
    out: Path,
    plan: Plan,
    device: torch.device,
    start: dict[str, torch.Tensor] | None = None,
    workers: int = 0,
) -> None:
    """Train until the plan is done, going on from ``out/checkpoint.pth`` if it is there.

    Parameters
    ----------
    look : Look
        Which network.
    cases : dict of str to Case
        All prepared cases; the split says which of them are trained on.
    out : Path
        Folder of the run.
    plan : Plan
        How long.
    device : torch.device
        Where.
    start : dict of str to Tensor, optional
        Weights that a new run starts from, of this network. Those of a segmenter of version 1 get
        the classes of version 2, to which the last layer is fitted first.
    workers : int
        Processes that draw patches ahead; with 0 this one draws them.

    Raises
    ------
    UsageError
        When no case is of the training part, or the run in `out` is of another network or other
        settings.
    KeyboardInterrupt
        After SIGINT or SIGTERM, once a checkpoint is written.
    """
    split = read_split()
    learn = [cases[name] for name in split["train"] if name in cases]
    check = [cases[name] for name in split["validation"] if name in cases]
    if not learn:
        raise UsageError("No head or map of the training part of the split is left to train on.")
    settings = {
        "features": look.features, "seed": plan.seed, "batch": plan.batch, "small": plan.small,
        "rate": plan.rate,
        "cases": [case.name for case in learn],
        "data": checksum(array for case in learn for array in case.arrays.values()),
        "start": checksum(weights.cpu().numpy() for weights in (start or {}).values()),
    }  # fmt: skip
    torch.manual_seed(plan.seed)
    run, spent = Run(look, device), 0.0
    drawing = Drawing(learn, look, plan.seed, plan.batch, plan.small)
    path = out / RUN_FILE
    if path.exists():
        state = read_run(out, device)
        there = {"features": look_of(look, state["network"], path).features}
        there |= state.get("settings", {})
        if other := [name for name in there if there[name] != settings[name]]:
            raise UsageError(
                f"{out} holds a run with other {' and '.join(other)}. Repeat its options, or name "
                "another --out."
            )
        run.go_on_from(state)
        spent = state["seconds"]
    elif start is not None:
        whole = add_parts(start)
        run.begin_with(whole)
        if any(len(whole[name]) > len(start[name]) for name in start):
            run.fit_last_layer([drawing.draw(step, 0.0) for step in range(FITTED_STEPS)])
    done = plan.progress(run.step, spent)
    if done >= 1:
        print(f"{out} is trained to its end: {run.step} steps, {spent / 60:.0f} minutes.")
        return
    make_folder(out)
    print(f"{out}: {'goes on' if run.step else 'begins'} at step {run.step}, {device}", flush=True)
    began = saved = checked = time.monotonic()
    began -= spent
    losses: list[float] = []
    with (
        continue_log(out / "log.csv", run.step) as log,
        drawn_ahead(drawing, workers) as batch_of,
        stoppable("A checkpoint is written, from which the same command goes on") as stop,
    ):
        writer = csv.writer(log)
        ending = False
        while not ending:
            batch = batch_of(run.step, done).to(device)
            warm = min(1.0, (run.step + 1) / WARM_UP_STEPS)
            rate = plan.rate * warm * (1 + math.cos(math.pi * done)) / 2
            losses.append(run.learn(batch, rate, RARE * max(0.0, 1 - done / RARE_UNTIL)))
            now = time.monotonic()
            done = plan.progress(run.step, now - began)
            seconds, loss = round(now - began), float(np.mean(losses))
            if now - checked > VALIDATE_EVERY_S or done >= 1:
                scores = validate(run.average, check, look, device)
                values = [value for case_scores in scores.values() for value in case_scores]
                mean = round(float(np.nanmean(values)), 4) if values else float("nan")
                told = (f"{n} " + " ".join(f"{v:.3f}" for v in s) for n, s in scores.items())
                writer.writerow([run.step, seconds, loss, mean, "; ".join(told)])
                print(f"step {run.step}, {seconds} s, loss {loss:.3f}, Dice {mean}", flush=True)
                checked, losses = time.monotonic(), []
            elif run.step % 25 == 0:
                writer.writerow([run.step, seconds, loss, "", ""])
                losses = []
            log.flush()
            ending = done >= 1 or bool(stop.signal)
            if ending or now - saved > SAVE_EVERY_S:
                kept = {**run.state(), "seconds": now - began, "settings": settings}
                with replacing(path) as place:
                    torch.save(kept, place)
                saved = now
    draw_curves(out)
    if done < 1:
        raise KeyboardInterrupt


def main() -> int:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train one network of the open model.")
    parser.add_argument("network", choices=sorted(LOOKS))
    parser.add_argument("--data", type=Path, required=True, help="the prepared file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=positive, help="length of the run in steps")
    length.add_argument("--minutes", type=_minutes, help="length of the run in minutes")
    parser.add_argument(
        "--batch",
        type=positive,
        default=1,
        help="patches a step; the segmenter takes pairs (%(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=_seed,
        default=1,
        help="of the first weights and of all patches (%(default)s)",
    )
    parser.add_argument("--start", type=Path, help="weights to start from: a checkpoint_final.pth")
    parser.add_argument(
        "--small",
        type=_share,
        default=SMALL_SHARE,
        help="part of a segmenter's run, from its start, on boxes of five sixths of the patch, 1.7 "
        "times as fast: 0 to 1 (%(default)s)",
    )
    parser.add_argument(
        "--rate",
        type=_rate,
        default=LEARNING_RATE,
        help="learning rate; a third of it keeps more of what --start can do (%(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        choices=range(33),
        metavar="N",
        default=0,
        help="processes that draw patches while the network learns (%(default)s)",
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        help="a dataset to leave out: ds011, ds002748 or synthseg; may be repeated",
    )
    parser.add_argument(
        "--features",
        type=_channels,
        help="channels of each stage, e.g. 24,48,96,160,192 (default: those of --start, or of the "
        "open model)",
    )
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plan = Plan(
        arguments.steps,
        arguments.minutes,
        arguments.batch,
        arguments.seed,
        arguments.small,
        arguments.rate,
    )
    cases = load_cases(arguments.data)
    datasets = {name: name.split("_")[0] for name in cases}
    if unknown := set(arguments.without) - set(datasets.values()):
        there = listing("dataset", datasets.values())
        raise UsageError(f"--without {' '.join(sorted(unknown))}: the file holds {there}.")
    cases = {name: cases[name] for name in cases if datasets[name] not in arguments.without}
    look, start = LOOKS[arguments.network], None
    if arguments.features:
        look = replace(look, features=arguments.features)
    if arguments.start:
        start = read_exported(arguments.start)
        given = look_of(look, add_parts(start), arguments.start)
        if arguments.features and given != look:
            raise UsageError(f"{arguments.start} has other channels: leave --features out.")
        look = given
    train(look, cases, arguments.out, plan, device, start=start, workers=arguments.workers)
    return 0


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 to {2**32 - 1}")
    return int(text)


def _minutes(text: str) -> float:
    if (minutes := _number(text)) is None or not minutes > 0:
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return minutes


def _share(text: str) -> float:
    if (share := _number(text)) is None or not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 to 1")
    return share


def _rate(text: str) -> float:
    if (rate := _number(text)) is None or not 0 < rate <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no number above 0, up to 1")
    return rate


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _channels(text: str) -> tuple[int, ...]:
    found = tuple(map(positive, text.split(",")))
    if not 2 <= len(found) <= MOST_STAGES:
        raise argparse.ArgumentTypeError(f"2 to {MOST_STAGES} stages make a network")
    return found


if __name__ == "__main__":
    raise SystemExit(guarded(main))
