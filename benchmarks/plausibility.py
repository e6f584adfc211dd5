"""Check the results of the participant level against what is anatomically plausible.

    python benchmarks/plausibility.py OUTPUT_DIR [OUTPUT_DIR ...]

Midbrain 5 to 15 ml, pons 9 to 22 ml, medulla 3 to 9 ml; centroids in order from above; 98 % of each
region in one cluster. Prints a row an image and what falls out; ends with 1 if anything does.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_app.bids.results import read_results
from bids_app.measures.volumes import measure_regions
from bids_app.regions import region

LIMITS_ML = {"midbrain": (5, 15), "pons": (9, 22), "medulla": (3, 9)}
MIN_LARGEST_SHARE = 0.98
REGIONS = tuple(region(index, name) for index, name in enumerate(LIMITS_ML, start=1))


def main() -> int:
    """Check all output datasets named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output_dir", type=Path, nargs="+")
    faults = images = 0
    print(f"{'image':<28}{'midbrain':>10}{'pons':>8}{'medulla':>9}{'seconds':>9}  faults")
    for folder in parser.parse_args().output_dir:
        for result in read_results(folder):
            row, found = check(result.outputs.dseg)
            name = f"{folder.name}/{Path(result.source).name.removesuffix('_T1w.nii.gz')}"
            seconds = result.sidecar["Seconds"]
            print(f"{name:<28}{row}{seconds:>9.1f}  {'; '.join(found) or '-'}")
            images += 1
            faults += bool(found)
    print(f"{images} images, {faults} with faults")
    return 1 if faults else 0


def check(path: Path) -> tuple[str, list[str]]:
    """Give the volumes of a label map in ml, as cells of a row, and what is wrong with it."""
    image = nib.load(path)
    *regions, _ = measure_regions(np.asarray(image.dataobj), image.affine, REGIONS)
    found = []
    for measure in regions:
        low, high = LIMITS_ML[measure.name]
        if not low <= measure.volume_mm3 / 1000 <= high:
            found.append(f"{measure.name} outside {low} to {high} ml")
        if measure.voxels and measure.largest_component_fraction < MIN_LARGEST_SHARE:
            found.append(f"{measure.name}: {measure.largest_component_fraction:.1%} in one cluster")
    heights = [m.centroid[2] for m in regions if m.centroid]
    if len(heights) < len(regions) or heights != sorted(heights, reverse=True):
        found.append("centroids out of order")
    cells = "".join(
        f"{measure.volume_mm3 / 1000:>{width}.2f}"
        for measure, width in zip(regions, (10, 8, 9), strict=True)
    )
    return cells, found


if __name__ == "__main__":
    sys.exit(main())
