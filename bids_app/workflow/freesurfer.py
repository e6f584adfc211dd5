"""Results in the layout of FreeSurfer's brainstem module, so that existing scripts can read them.

For each result a folder ``freesurfer/<image>/mri`` holds what FreeSurfer's ``segmentBS`` would
write there (https://surfer.nmr.mgh.harvard.edu/fswiki/BrainstemSubstructures), with the model's
label in place of FreeSurfer's version string: ``brainstemSsVolumes.<label>.txt``, a name and a
volume in mm3 per line, and ``brainstemSsLabels.<label>.nii.gz`` with the codes of FreeSurfer's
colour table, on the image's own grid. FreeSurfer defines these regions differently
(docs/labels.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bids_app.bids.outputs import FREESURFER_FOLDER
from bids_app.io.files import check_inside, write_atomic
from bids_app.io.nifti import load_image, nifti_bytes
from bids_app.regions import WHOLE_NAME, region

if TYPE_CHECKING:
    from pathlib import Path

    from bids_app.bids.results import Result

# In the order of FreeSurfer's file. There is no label for the superior cerebellar peduncle; a line
# without a number keeps scripts right that count lines.
_LINES = {
    "Medulla": "medulla",
    "Pons": "pons",
    "SCP": None,
    "Midbrain": "midbrain",
    "Whole_brainstem": WHOLE_NAME,
}


def write_freesurfer(output_dir: Path, result: Result) -> None:
    """Write a result in FreeSurfer's layout.

    Parameters
    ----------
    output_dir : Path
        The derivative dataset.
    result : Result
        Its label map is read from the dataset.

    Raises
    ------
    OSError
        The label map cannot be read.
    OutputError
        A file cannot be written.
    """
    volumes = {row.name: f"{row.volume_mm3:.3f}" for row in result.volumes}
    lines = [f"{name} {volumes.get(own or '', 'nan')}\n" for name, own in _LINES.items()]
    image, label, described = result.outputs.split_stem()
    folder = output_dir / FREESURFER_FOLDER / f"{image}{described}" / "mri"
    check_inside(output_dir, [folder])
    write_atomic(folder / f"brainstemSsVolumes.{label}.txt", "".join(lines).encode())
    codes = np.zeros(256, dtype=np.int16)
    for row in result.volumes:
        if row.index is not None:
            codes[row.index] = region(row.index, row.name).freesurfer or 0
    labels = load_image(result.outputs.dseg)
    coded = type(labels)(codes[np.asarray(labels.dataobj)], None, labels.header)
    coded.set_data_dtype(np.int16)
    coded.header["vox_offset"] = coded.header.single_vox_offset
    write_atomic(folder / f"brainstemSsLabels.{label}.nii.gz", nifti_bytes(coded, compress=True))
