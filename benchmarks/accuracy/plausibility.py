"""Check results of the participant level against what is anatomically plausible.

Midbrain 5 to 15 ml, pons 9 to 22 ml, medulla 3 to 9 ml; centroids in this order from the top; 98 %
of each region in one component. Prints a row per image; exits with 1 if any image has a fault.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from benchmarks.app import measure_regions, region, results_of
from benchmarks.common import Output, header

if TYPE_CHECKING:
    import argparse

LIMITS_ML = {"midbrain": (5, 15), "pons": (9, 22), "medulla": (3, 9)}
MIN_COMPONENT_FRACTION = 0.98
REGIONS = tuple(region(index, name) for index, name in enumerate(LIMITS_ML, start=1))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("output_dir", type=Path, nargs="+")


def main(options: argparse.Namespace) -> int:
    """Check all output datasets that the command line names."""
    faults = images = 0
    results = [(folder, r) for folder in options.output_dir for r in results_of(folder)]
    models = sorted({result.model for _, result in results})
    with Output(options.out) as out:
        out(*header(", ".join(models), packages=()))
        out(f"{'image':<28}{'midbrain':>10}{'pons':>8}{'medulla':>9}{'seconds':>9}  faults")
        for folder, result in results:
            row, found = check(result.dseg)
            name = f"{folder.name}/{Path(result.source).name.removesuffix('_T1w.nii.gz')}"
            seconds = result.sidecar["Seconds"]
            out(f"{name:<28}{row}{seconds:>9.1f}  {'; '.join(found) or '-'}")
            images += 1
            faults += bool(found)
        out(f"{images} images, {faults} with faults")
    return 1 if faults else 0


def check(path: Path) -> tuple[str, list[str]]:
    """Return the volumes of a label map in ml, as cells of a row, and its faults."""
    image = nib.load(path)
    *regions, _ = measure_regions(np.asarray(image.dataobj), image.affine, REGIONS)
    found = []
    for measure in regions:
        low, high = LIMITS_ML[measure.name]
        if not low <= measure.volume_mm3 / 1000 <= high:
            found.append(f"{measure.name} outside {low} to {high} ml")
        if measure.voxels and measure.largest_component_fraction < MIN_COMPONENT_FRACTION:
            found.append(
                f"{measure.name}: {measure.largest_component_fraction:.1%} in one component"
            )
    heights = [m.centroid[2] for m in regions if m.centroid]
    if len(heights) < len(regions) or heights != sorted(heights, reverse=True):
        found.append("centroids out of order")
    cells = "".join(
        f"{measure.volume_mm3 / 1000:>{width}.2f}"
        for measure, width in zip(regions, (10, 8, 9), strict=True)
    )
    return cells, found
