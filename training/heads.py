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
from scipy import io, ndimage

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BOX_SHAPE = (65, 71, 97)
BOX_AFFINE = np.array([[1, 0, 0, -32], [0, 1, 0, -66], [0, 0, 1, -84], [0, 0, 0, 1]], float)
STRIPPED = {"ds002748"}
TEMPLATE = "template/mni_icbm152_t1_tal_nlin_sym_09c"
# SynthSeg's label codes, the class of each, and the mean of each class on T1.
CLASS_FILES = ("generation_labels", "generation_classes_contrast_specific", "prior_means_t1")


@dataclass(frozen=True)
class Head:
    """A head to label.

    Attributes
    ----------
    name : str
        Source and subject: ``ds011_sub-01``, ``synthseg_02``.
    path : Path
        The T1w image, or the label map.
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


def find_heads(data: Path) -> list[Head]:
    """List the heads of a folder that holds ``ds011``, ``ds002748`` and ``synthseg_labels``."""
    real = [
        Head(f"{source}_{path.parts[-3]}", path)
        for source in ("ds002748", "ds011")
        for path in sorted((data / source).glob("sub-*/anat/sub-*_T1w.nii.gz"))
    ]
    maps = [
        Head(f"synthseg_{path.name.removesuffix('.nii.gz')[-2:]}", path)
        for path in sorted((data / "synthseg_labels").glob("training_seg_*.nii.gz"))
    ]
    return real + maps


def read_image(head: Head) -> nib.Nifti1Image:
    """Return a head's T1w image, or for a label map a T1-like image of its class means.

    The means are SynthSeg's priors for T1 (``prior_means_t1.npy``); a blur of 0.7 mm stands for
    the partial volume that images have.
    """
    image = nib.load(head.path)
    if head.real:
        return nib.Nifti1Image(np.nan_to_num(image.get_fdata(dtype=np.float32)), image.affine)
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
    import ants  # the extra `train`

    ants.config.set_ants_deterministic(on=True, seed_value=1)
    with tempfile.TemporaryDirectory() as folder:
        fixed, moving = (
            ants.resample_image(ants.from_nibabel_nifti(image), (3, 3, 3), False, 0)
            for image in (head, template)
        )
        result = ants.registration(
            fixed,
            moving,
            "Affine",
            outprefix=f"{folder}/",
            aff_metric="mattes",
            aff_iterations=(1000, 500, 200, 0),
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
