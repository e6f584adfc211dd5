"""Known atrophy with a sharp edge: the outermost layer of regions next to CSF turned to CSF."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from training.cases import REGIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.evaluate import HeldOut

CSF_NEAR_MM = 8.0  # where the intensity of CSF is read
CSF_PERCENTILE = 5.0
DEEPEST = 4  # layer of voxels that is eroded


def erode(
    head: HeldOut, share: float, regions: Sequence[int] = tuple(REGIONS)
) -> tuple[NDArray[np.float32], dict[int, float]]:
    """Turn the outermost voxels of regions next to CSF to CSF by partial volume.

    Each region loses the same share. Layers of voxels are used up from the outside; in the last one
    all voxels lose the same part of their tissue.

    Parameters
    ----------
    head : HeldOut
    share : float
        Of the volume of each region.
    regions : sequence of int
        Label values.

    Returns
    -------
    data : ndarray of float32, shape (X, Y, Z)
    changes : dict of int to float
        True relative change of each region; 0 for those that stay. It can be less than `share`
        where little of a region borders on CSF.
    """
    truth, edges = head.truth, head.volume.voxel_size
    data = head.volume.data.astype(np.float64)
    stem = np.isin(truth, REGIONS)
    away = ndimage.distance_transform_edt(~stem, sampling=edges)
    ring = (away > 0) & (away <= CSF_NEAR_MM) & (data > 0)
    fluid = float(np.percentile(data[ring], CSF_PERCENTILE))
    around = {region: float(np.median(data[truth == region])) for region in regions}
    near = ndimage.distance_transform_edt(~stem, return_indices=True, sampling=edges)[1]
    owner = truth[tuple(near)]
    changes = dict.fromkeys(REGIONS, 0.0)
    for region in regions:
        tissue = np.clip((data - fluid) / (around[region] - fluid), 0, 1)
        # Its voxels, and those beside them that hold part of its edge.
        own = (owner == region) & (away <= 1.5 * max(edges))
        wet = (tissue < 0.5) & ~stem & (away <= CSF_NEAR_MM)
        total = share * np.count_nonzero(truth == region)
        depth = ndimage.distance_transform_edt(~wet, sampling=edges)
        layers = np.maximum(np.ceil(depth / min(edges) - 0.01), 1)
        lost, layer = 0.0, 1
        while lost < total and layer <= DEEPEST:
            chosen = own & (layers == layer)
            layer += 1
            if not (there := float(tissue[chosen].sum())):
                continue
            part = min((total - lost) / there, 1)
            data[chosen] -= part * tissue[chosen] * (around[region] - fluid)
            lost += part * there
        changes[region] = -lost / np.count_nonzero(truth == region)
    return np.where(head.volume.data > 0, data.clip(0), 0).astype(np.float32), changes
