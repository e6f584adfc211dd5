"""Volumes and positions that no brainstem has are reported."""

import nibabel as nib
import numpy as np
import pytest

from benchmarks.accuracy.plausibility import check


def save(path, blocks):
    """A label map with a block of 20 x 20 voxels of 1 mm per label: (label, first slice, last)."""
    labels = np.zeros((40, 40, 100), np.uint8)
    for value, low, high in blocks:
        labels[10:30, 10:30, low:high] = value
    nib.save(nib.Nifti1Image(labels, np.eye(4)), path)
    return path


@pytest.mark.parametrize(
    ("blocks", "fault"),
    [
        ([(1, 50, 70), (2, 20, 50), (3, 5, 20)], ""),
        ([(1, 50, 90), (2, 20, 50), (3, 5, 20)], "midbrain outside 5 to 15 ml"),
        ([(1, 5, 25), (2, 25, 55), (3, 55, 70)], "centroids out of order"),
        ([(1, 50, 70), (2, 20, 50), (3, 2, 10), (3, 80, 90)], "in one component"),
        ([(1, 50, 70), (2, 20, 50)], "medulla outside 3 to 9 ml"),
    ],
)
def test_faults_are_named(tmp_path, blocks, fault):
    _, found = check(save(tmp_path / "map.nii.gz", blocks))
    assert bool(found) == bool(fault)
    assert fault in "; ".join(found)
