"""The heads that labels are made for, and their place in the box around the posterior fossa.

Three sources: two BIDS datasets of T1w images (ds011 with whole heads, ds002748 skull-stripped),
and the SynthSeg label maps, from which a T1-like image is drawn. The box is one for all: 1 mm
voxels in the space of the MNI ICBM 2009c symmetric template, mirrored onto itself by turning its
first axis around. A head is brought there by an affine registration of the whole head.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from scipy import io, ndimage

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BOX_SHAPE = (65, 71, 97)
BOX_AFFINE = np.array([[1, 0, 0, -32], [0, 1, 0, -66], [0, 0, 1, -84], [0, 0, 0, 1]], float)
STRIPPED = ("ds002748", "ms_sub-07", "twins_ch2bet")  # how the names of such heads begin
# Images of one person in one visit share a registration, that of the T1w image named here.
SAME_HEAD = {
    "ms_sub-01_ses-1_FLAIR": "ms_sub-01_ses-1",
    "ms_sub-01_ses-2": "ms_sub-01_ses-1",
    "ms_sub-07_FLAIR": "ms_sub-07",
    "ms_sub-07_ce-gad": "ms_sub-07",
    "ms_sub-12_ses-1_FLAIR": "ms_sub-12_ses-1",
    "ms_sub-12_ses-1_T2w": "ms_sub-12_ses-1",
    "ms_sub-12_ses-2": "ms_sub-12_ses-1",
    "twins_ch2bet": "twins_ch2",
}
# The affine to the template fails on this head; by way of another of its dataset it does not.
BY_WAY_OF = {"ms_sub-03": "ms_sub-04"}
SAME_SPACE = ("ms_sub-07", "twins_ch2bet")  # these also share a space; the others lie by scanner
FORMATS = ("T1w2mm", "T2w", "FLAIR_MICCAI2017")
TWINS = ("ch2", "ch2bet", "chris_t1")
OTHER_CONTRASTS = ("FLAIR", "T2w")
THICK_MM = 1.5  # images with an edge longer than that are labelled on a grid of 1 mm
TEMPLATE = "template/mni_icbm152_t1_tal_nlin_sym_09c"
# SynthSeg's label codes, the class of each, and the mean of each class on T1.
CLASS_FILES = ("generation_labels", "generation_classes_contrast_specific", "prior_means_t1")


@dataclass(frozen=True)
class Head:
    """A head to label.

    Attributes
    ----------
    name : str
        Source and subject: ``ds011_sub-01``, ``ms_sub-01_ses-1_FLAIR``, ``synthseg_02``.
    path : Path
        The image (T1w where the name says nothing else), or the label map.
    """

    name: str
    path: Path

    @property
    def source(self) -> str:
        """The dataset it comes from."""
        return self.name.partition("_")[0]

    @property
    def real(self) -> bool:
        """Whether there is an image of it (else a label map only)."""
        return self.source != "synthseg"

    @property
    def stripped(self) -> bool:
        """Whether the image shows the brain without the skull."""
        return self.name.startswith(STRIPPED)

    @property
    def t1w(self) -> bool:
        """Whether the image has the contrast of the template."""
        return self.real and not any(kind in self.name for kind in OTHER_CONTRASTS)


def find_heads(data: Path) -> list[Head]:
    """List the heads of a folder.

    Parameters
    ----------
    data : Path
        Folder that holds some of the BIDS datasets ``ds011``, ``ds002748`` and ``ms``, and of
        ``twins``, ``formats`` and ``synthseg_labels``.

    Returns
    -------
    list of Head
    """
    found = [
        Head(f"{source}_{path.name.removesuffix('.nii.gz').removesuffix('_T1w')}", path)
        for source in ("ds002748", "ds011", "ms")
        for path in sorted((data / source).glob("sub-*/**/anat/sub-*_*.nii.gz"))
    ]
    found += [Head(f"twins_{name}", data / "twins" / f"{name}.nii.gz") for name in TWINS]
    found += [Head(f"formats_{name}", data / "formats" / f"{name}.nii.gz") for name in FORMATS]
    found += [
        Head(f"synthseg_{path.name.removesuffix('.nii.gz')[-2:]}", path)
        for path in sorted((data / "synthseg_labels").glob("training_seg_*.nii.gz"))
    ]
    return [head for head in found if head.path.exists()]


def image_path(name: str, data: Path) -> Path:
    """Return where the image or map of a head lies, by the name that `find_heads` gives it."""
    source, _, rest = name.partition("_")
    if source == "synthseg":
        return data / "synthseg_labels" / f"training_seg_{rest}.nii.gz"
    if source in ("twins", "formats"):
        return data / source / f"{rest}.nii.gz"
    folders = [part for part in rest.split("_") if part.startswith(("sub-", "ses-"))]
    suffix = "" if rest.endswith(OTHER_CONTRASTS) else "_T1w"
    return data.joinpath(source, *folders, "anat", f"{rest}{suffix}.nii.gz")


def label_grid(
    shape: tuple[int, ...], affine: NDArray[np.float64]
) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Return the grid on which an image is labelled.

    Parameters
    ----------
    shape, affine : tuple of int, ndarray of float64, shape (4, 4)
        The image's grid.

    Returns
    -------
    shape, affine
        The same grid, or for thick slices one of 1 mm with the same axes and first voxel.
    """
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    if edges.max() <= THICK_MM:
        return (int(shape[0]), int(shape[1]), int(shape[2])), affine
    fine = affine.copy()
    fine[:3, :3] /= edges
    i, j, k = np.floor((np.array(shape[:3]) - 1) * edges + 1e-3).astype(int) + 1
    return (int(i), int(j), int(k)), fine


def on_label_grid(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Resample an image of thick slices to the grid of its labels, by cubic interpolation."""
    shape, affine = label_grid(image.shape, image.affine)
    if affine is image.affine:
        return image
    return nib.Nifti1Image(
        resample_from_to(image, (shape, affine), order=3).get_fdata(dtype=np.float32), affine
    )


def read_image(head: Head) -> nib.Nifti1Image:
    """Return a head's image, or for a label map a T1-like image of its class means.

    The means are SynthSeg's priors for T1 (``prior_means_t1.npy``); a blur of 0.7 mm stands for
    the partial volume that images have.
    """
    image = nib.load(head.path)
    if head.real:
        return nib.Nifti1Image(
            np.nan_to_num(np.squeeze(image.get_fdata(dtype=np.float32))), image.affine
        )
    codes = np.asarray(image.dataobj).astype(int)
    table = np.zeros(codes.max() + 1, np.float32)
    for code, mean in _class_means(head.path.parent):
        if code <= codes.max():
            table[code] = mean
    drawn = ndimage.gaussian_filter(table[codes], 0.7)
    return nib.Nifti1Image(drawn, image.affine)


def read_template(data: Path, *, stripped: bool) -> nib.Nifti1Image:
    """Return the template's T1w image, with the skull or without."""
    template = nib.load(data / f"{TEMPLATE}.nii.gz")
    intensities = template.get_fdata(dtype=np.float32)
    if stripped:
        intensities = intensities * (
            np.asarray(nib.load(data / f"{TEMPLATE}_mask.nii.gz").dataobj) > 0
        )
    return nib.Nifti1Image(intensities, template.affine)


def whole_head_affine(head: nib.Nifti1Image, template: nib.Nifti1Image) -> NDArray[np.float64]:
    """Register the template to a whole head, both at 3 mm.

    Parameters
    ----------
    head, template : nibabel image
        Both with the skull, or both without.

    Returns
    -------
    ndarray of float64, shape (4, 4)
        From RAS mm of the head to RAS mm of the template.
    """
    return _register_linearly(head, template, "Affine", 3.0)


def affine_between(image: nib.Nifti1Image, other: nib.Nifti1Image) -> NDArray[np.float64]:
    """Register two heads of one dataset; from RAS mm of `image` to RAS mm of `other`."""
    return _register_linearly(image, other, "Affine", 3.0)


def rigid_between(image: nib.Nifti1Image, other: nib.Nifti1Image) -> NDArray[np.float64]:
    """Align two images of one head that lie about in the same place, at 1.5 mm.

    Returns
    -------
    ndarray of float64, shape (4, 4)
        From RAS mm of `image` to RAS mm of `other`.
    """
    return _register_linearly(image, other, "Rigid", 1.5)


def _register_linearly(
    fixed: nib.Nifti1Image, moving: nib.Nifti1Image, kind: str, edge_mm: float
) -> NDArray[np.float64]:
    """Register by mutual information; return the matrix from RAS mm of `fixed` to `moving`."""
    import ants  # the extra `train`

    ants.config.set_ants_deterministic(on=True, seed_value=1)
    with tempfile.TemporaryDirectory() as folder:
        pair = (
            ants.resample_image(ants.from_nibabel_nifti(image), (edge_mm,) * 3, False, 0)
            for image in (fixed, moving)
        )
        result = ants.registration(
            *pair,
            kind,
            outprefix=f"{folder}/",
            aff_metric="mattes",
            aff_iterations=(1000, 500, 200, 0),
            **({"initial_transform": "Identity"} if kind == "Rigid" else {}),
        )
        itk = io.loadmat(result["fwdtransforms"][0])
    (parameters,) = (v.ravel() for k, v in itk.items() if k.startswith("AffineTransform"))
    matrix, shift, centre = parameters[:9].reshape(3, 3), parameters[9:], itk["fixed"].ravel()
    lps = np.eye(4)
    lps[:3, :3] = matrix
    lps[:3, 3] = shift + centre - matrix @ centre
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    return np.asarray(flip @ lps @ flip)


def draw_in_box(
    data: NDArray[np.float32],
    affine: NDArray[np.float64],
    to_template: NDArray[np.float64] | None = None,
    order: Literal[0, 1] = 1,
) -> NDArray[np.float32]:
    """Resample an array onto the box; 0 outside of its field of view.

    Parameters
    ----------
    data : ndarray, shape (i, j, k)
        On its own voxel grid.
    affine : ndarray of float64, shape (4, 4)
        From its voxels to RAS mm.
    to_template : ndarray of float64, shape (4, 4), optional
        From its RAS mm to those of the template; identity when left out.
    order : int
        Of the spline: 0 for labels, 1 for images.

    Returns
    -------
    ndarray of float32, shape `BOX_SHAPE`
    """
    full = affine if to_template is None else to_template @ affine
    pull: NDArray[np.float64] = np.linalg.inv(full) @ BOX_AFFINE
    return np.asarray(
        ndimage.affine_transform(
            data.astype(np.float32), pull[:3, :3], pull[:3, 3], BOX_SHAPE, order=order
        )
    )


@cache
def _class_means(folder: Path) -> list[tuple[int, float]]:
    """SynthSeg's label codes with the T1 mean of each one's class."""
    codes, classes, means = (np.load(folder / f"{name}.npy") for name in CLASS_FILES)
    return [(int(code), float(means[0, int(k)])) for code, k in zip(codes, classes, strict=True)]
