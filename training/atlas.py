"""The atlas that is carried to every head: where regions meet, and where the brainstem ends.

Two sources, on the box of `training.heads`:

- the Allen Human Reference Atlas (2020) says where midbrain, pons and medulla meet, where the
  ventral midbrain ends towards the diencephalon, and where the peduncles lie;
- label 16 of the SynthSeg maps (FreeSurfer's and the manual protocols' brainstem) says where the
  brainstem ends towards cerebellum and CSF: the average of the training maps, together with the
  ventral midbrain, which those maps give to the ventral diencephalon.

The regions are cut off below by a plane across the axis of the medulla, 3 mm below the lowest
cerebellum; what follows is cord. ``docs/labels.md`` shows all of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from training.heads import BOX_AFFINE, BOX_SHAPE, TEMPLATE, draw_in_box

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NAMES = ("midbrain", "pons", "medulla", "scp", "mcp", "icp", "cord")
ALLEN = {
    "midbrain": ("MTg", "RN", "SN", "SC", "IC", "cpd", "PTR", "Aq"),
    "pons": ("PnBa", "PnTg"),
    "medulla": ("MoPy", "MoTg", "IO", "cec"),
    "scp": ("scp",),
    "mcp": ("mcp",),
    "icp": ("icp",),
}
TECTUM = ("SC", "IC")  # superior and inferior colliculus; part of the midbrain
CEREBELLUM = ("CBL", "CBPV", "HWM", "CBV")
BRAINSTEM_CODE = 16
VENTRAL_DIENCEPHALON_CODES = (28, 60)
VENTRICLE_CODES = (14, 15)

# Template z in mm. The lowest cerebellum of the template lies at -66.5; the Allen atlas ends at
# -70, the template at -78.
CUT_Z = -69.5
TEMPLATE_BOTTOM_Z = -77.0
AXIS_Z = (-60.0, -76.0)
COLUMN_FROM_Z = -57.0  # down from here the tissue of the medulla stands alone in CSF
WHITE_SHARE = 0.62  # of the pons' intensity: the border of that tissue towards CSF
FADE_MM = 4.0  # from the maps' border to that one


@dataclass(frozen=True)
class Atlas:
    """Arrays on the box, all mirrored onto themselves.

    Attributes
    ----------
    t1, brain : ndarray of float32, shape `BOX_SHAPE`
        The template's intensities; its brain together with the cord, as 0 or 1.
    parts : ndarray of float32, shape (3, x, y, z)
        Midbrain, pons and medulla shares of every voxel, of the brainstem or not; their sum is 1.
    midbrain : ndarray of float32, shape `BOX_SHAPE`
        The Allen midbrain's share, with its own outer border.
    tectum : ndarray of float32, shape `BOX_SHAPE`
        Which part of a voxel's midbrain is tectum, from 0 to 1; known everywhere.
    whole : ndarray of float32, shape `BOX_SHAPE`
        Share of brainstem and cord, down to the template's lower end.
    peduncles : ndarray of float32, shape (3, x, y, z)
        Shares of the superior, middle and inferior peduncle outside of `whole`.
    axis : ndarray of float64, shape (n, 3)
        Points on the axis of medulla and cord, top to bottom, in voxels of the box.
    cut : ndarray of float64, shape (3,)
        The point of the axis at which the medulla ends.
    """

    t1: NDArray[np.float32]
    brain: NDArray[np.float32]
    parts: NDArray[np.float32]
    midbrain: NDArray[np.float32]
    tectum: NDArray[np.float32]
    whole: NDArray[np.float32]
    peduncles: NDArray[np.float32]
    axis: NDArray[np.float64]
    cut: NDArray[np.float64]


def build_atlas(data: Path, borders: list[NDArray[np.float32]]) -> Atlas:
    """Build the atlas from the sources' files.

    Parameters
    ----------
    data : Path
        Folder that holds ``allen`` and ``template``.
    borders : list of ndarray of float32, shape `BOX_SHAPE`
        Shares of the brainstem in label maps, carried to the box (see `map_brainstem`). With
        none, the outer border is the Allen atlas's own.

    Returns
    -------
    Atlas
    """
    groups, colliculi, cerebellum = _allen_groups(data / "allen")
    own = groups[:3].sum(0)
    template = nib.load(data / f"{TEMPLATE}.nii.gz")
    mask = nib.load(data / f"{TEMPLATE}_mask.nii.gz")
    t1 = _symmetric(draw_in_box(template.get_fdata(dtype=np.float32), template.affine))
    brain = draw_in_box((np.asarray(mask.dataobj) > 0).astype(np.float32), mask.affine) > 0.5
    column = _tissue_column(t1, groups, cerebellum)
    whole = _outer_border(borders, np.maximum(own, _soften(column)), _soften(column))

    inner = np.asarray(groups[:3] > 0.5)
    inner[2] |= column
    owner = _extend(inner.argmax(0), inner.max(0))
    parts = np.stack([_soften(owner == k) for k in range(3)])
    tectum = _extend(colliculi > groups[0] / 2, inner[0])

    peduncles = groups[3:].copy()
    peduncles[1] = np.clip(groups[4] + groups[1], 0, 1)  # cut off the pons by the maps' border
    axis = _axis(column)
    return Atlas(
        t1=t1,
        brain=_symmetric(
            (brain | ndimage.binary_dilation(column, iterations=3)).astype(np.float32)
        ),
        parts=_symmetric(parts / parts.sum(0)),
        midbrain=groups[0],
        tectum=_soften(tectum),
        whole=whole,
        peduncles=peduncles * (1 - whole),
        axis=axis,
        cut=_on_axis(axis, CUT_Z),
    )


def map_brainstem(codes: NDArray[np.integer], midbrain: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the brainstem of a SynthSeg map by our definition.

    That is its label 16, with the ventral midbrain and the aqueduct.

    Parameters
    ----------
    codes : ndarray of int
        FreeSurfer's label codes.
    midbrain : ndarray of float32, same shape
        Share of the Allen midbrain, carried there.

    Returns
    -------
    ndarray of bool
    """
    ventral = np.isin(codes, VENTRAL_DIENCEPHALON_CODES) & (midbrain > 0.5)
    aqueduct = np.isin(codes, VENTRICLE_CODES) & (midbrain > 0.9)
    return largest_piece((codes == BRAINSTEM_CODE) | ventral | aqueduct)


def _outer_border(
    borders: list[NDArray[np.float32]],
    own: NDArray[np.float32],
    column: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Average the maps' brainstems; lower down, where many maps taper off, take the tissue."""
    if not borders:
        return _symmetric(own)
    # The average of borders that scatter is wide; a share of 0.5 keeps its place.
    sharp = np.clip(0.5 + 3 * (np.mean(borders, axis=0) - 0.5), 0, 1)
    maps = np.clip((box_z() - COLUMN_FROM_Z) / FADE_MM + 1, 0, 1)
    return _symmetric(largest_piece(sharp > 0.1) * sharp * maps + column * (1 - maps))


def _extend(values: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[Any]:
    """Give every voxel the value of the nearest known one."""
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(values[tuple(nearest)])


def _allen_groups(
    folder: Path,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Shares of the groups of `ALLEN` on the box, (6, x, y, z), of `TECTUM`, and the cerebellum."""
    names = json.loads((folder / "AllenAtlas.json").read_text())["labels"]
    image = nib.load(folder / "AllenAtlas.nii.gz")
    lower = np.linalg.inv(image.affine) @ BOX_AFFINE @ [-1, -1, -1, 1]
    upper = np.linalg.inv(image.affine) @ BOX_AFFINE @ [*BOX_SHAPE, 1]
    window = tuple(slice(max(int(a), 0), int(b)) for a, b in zip(lower[:3], upper[:3], strict=True))
    image = image.slicer[window]
    index = np.asarray(image.dataobj)

    def share(group: tuple[str, ...]) -> NDArray[np.float32]:
        member = np.isin(index, [names.index(name) for name in group]).astype(np.float32)
        return draw_in_box(ndimage.uniform_filter(member, 3), image.affine)

    groups = np.stack([_symmetric(share(group)) for group in ALLEN.values()])
    return groups, _symmetric(share(TECTUM)), _symmetric(share(CEREBELLUM)) > 0.5


def _tissue_column(
    t1: NDArray[np.float32], groups: NDArray[np.float32], cerebellum: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Grow medulla and cord downwards, slice by slice, through tissue as bright as the pons."""
    z = box_z()
    tissue = t1 > WHITE_SHARE * np.median(t1[groups[1] > 0.9])
    tissue &= ~ndimage.binary_dilation(cerebellum)
    column = np.zeros(BOX_SHAPE, bool)
    top = int(np.searchsorted(z, COLUMN_FROM_Z))
    above = ndimage.binary_dilation(groups[2, :, :, top] > 0.5)
    for k in range(top, int(np.searchsorted(z, TEMPLATE_BOTTOM_Z)) - 1, -1):
        piece = ndimage.binary_opening(tissue[:, :, k] & ndimage.binary_dilation(above))
        above = ndimage.binary_fill_holes(largest_piece(piece))
        column[:, :, k] = above
    return np.asarray(column | column[::-1])


def _axis(column: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Centres of the tissue column, fitted by a straight line; one point a slice."""
    z = box_z()
    slices = np.flatnonzero((z <= AXIS_Z[0]) & (z >= AXIS_Z[1]))[::-1]
    centres = np.array([np.argwhere(column[:, :, k]).mean(0)[1] for k in slices])
    line = np.polyval(np.polyfit(slices, centres, 1), slices)
    return np.column_stack([np.full(len(slices), (BOX_SHAPE[0] - 1) / 2), line, slices])


def _on_axis(axis: NDArray[np.float64], z_mm: float) -> NDArray[np.float64]:
    """Point of the axis at a template z."""
    k = z_mm - BOX_AFFINE[2, 3]
    return np.array([axis[0, 0], np.interp(k, axis[::-1, 2], axis[::-1, 1]), k])


def _soften(member: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Turn a set of voxels into shares with half a millimetre of blur."""
    return np.asarray(ndimage.gaussian_filter(member.astype(np.float32), 0.5))


def _symmetric(share: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average with the mirror image; x is the third axis from the last."""
    return ((share + np.flip(share, -3)) / 2).astype(np.float32)


def largest_piece(member: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest connected piece of a set of voxels."""
    pieces, found = ndimage.label(member)
    if found < 2:
        return member
    sizes = np.bincount(pieces.ravel())
    return np.asarray(pieces == 1 + np.argmax(sizes[1:]))


def box_z() -> NDArray[np.float64]:
    """Template z of the box's slices, in mm."""
    return np.asarray(BOX_AFFINE[2, 3] + np.arange(BOX_SHAPE[2]))
