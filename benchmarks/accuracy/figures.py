"""Figures: volumes of model against label, and contours on the worst heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.app import region
from training.cases import MEDULLA
from training.evaluate import VALUES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from training.evaluate import HeldOut

MARKERS = {"ds011": "o", "ds002748": "s", "synthseg": "^"}
MARGIN_MM = 12.0


def draw_volumes(scores: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Plot the volumes that the model measures over those of the labels.

    Parameters
    ----------
    scores : mapping of str to sequence of dict
        Rows of `training.evaluate.score` by head.
    path : Path
        The PNG file to write.
    """
    figure, panels = plt.subplots(1, len(VALUES), figsize=(13, 3.6), layout="constrained")
    for panel, name in zip(panels, VALUES, strict=True):
        rows = {
            head: next(r for r in found if r["region"] == name) for head, found in scores.items()
        }
        for source, marker in MARKERS.items():
            own = [row for head, row in rows.items() if head.startswith(f"{source}_")]
            panel.scatter(
                [row["label_ml"] for row in own],
                [row["found_ml"] for row in own],
                marker=marker,
                color=region(1, name).color,
                edgecolor="black",
                label="maps" if source == "synthseg" else source,
            )
        ends = [row[key] for row in rows.values() for key in ("label_ml", "found_ml")]
        line = [0.95 * min(ends), 1.05 * max(ends)]
        panel.plot(line, line, color="grey", linewidth=0.8)
        panel.set(title=name, xlabel="label, ml", aspect="equal", xlim=line, ylim=line)
    panels[0].set_ylabel("model, ml")
    panels[0].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)


def draw_contours(head: HeldOut, found: NDArray[np.uint8], path: Path) -> None:
    """Draw three slices of each plane, with the contours of model and label.

    Parameters
    ----------
    head : HeldOut
    found : ndarray of uint8, shape (X, Y, Z)
        The model's labels, drawn solid; those of the head are dotted.
    path : Path
        The PNG file to write.
    """
    truth = np.where(head.truth <= MEDULLA, head.truth, 0)
    edges = head.volume.voxel_size
    inside = np.argwhere((truth > 0) | (found > 0))
    margin = [int(MARGIN_MM / edge) for edge in edges]
    low = np.maximum(inside.min(0) - margin, 0)
    high = np.minimum(inside.max(0) + margin + 1, truth.shape)
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    top = np.percentile(head.volume.data[window], 99.5)
    figure, panels = plt.subplots(3, 3, figsize=(12, 13), layout="constrained")
    for axis, row in enumerate(panels):
        ends = inside[:, axis].min(), inside[:, axis].max()
        for share, panel in zip((0.3, 0.5, 0.7), row, strict=True):
            at = round(ends[0] + share * (ends[1] - ends[0]))
            image, model, label = (
                np.take(a[window], at - low[axis], axis).T for a in (head.volume.data, found, truth)
            )
            across, up = (edges[i] for i in range(3) if i != axis)
            panel.imshow(image, cmap="gray", vmin=0, vmax=top, origin="lower", aspect=up / across)
            for name, (value, *more) in VALUES.items():
                if not more:
                    color = region(value, name).color
                    for mask, style in ((model == value, "solid"), (label == value, "dotted")):
                        if mask.any():
                            panel.contour(mask, [0.5], colors=color, linestyles=style, linewidths=1)
            panel.set(xticks=[], yticks=[], title=f"{'xyz'[axis]} {at}")
    figure.suptitle(f"{head.name}: model solid, label dotted")
    figure.savefig(path, dpi=80)
    plt.close(figure)
