"""Results in the layout of FreeSurfer's brainstem module, so that existing scripts read them.

For each result a folder ``freesurfer/<image>/mri`` holds what FreeSurfer's ``segmentBS`` would
write there (https://surfer.nmr.mgh.harvard.edu/fswiki/BrainstemSubstructures), with the model's
label in place of FreeSurfer's version: ``brainstemSsVolumes.<label>.txt``, a name and a volume in
mm3 a line, and ``brainstemSsLabels.<label>.nii.gz`` with the codes of FreeSurfer's colour table,
on the image's own grid. FreeSurfer draws these regions by another definition (docs/labels.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from bids_app.bids.outputs import FREESURFER_FOLDER
from bids_app.bids.results import read_results
from bids_app.io.files import write_atomic
from bids_app.io.nifti import nifti_bytes
from bids_app.regions import WHOLE_NAME, region

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bids_app.bids.results import Result

# In the order of FreeSurfer's file. The superior cerebellar peduncle has no label here; a line
# that is no number keeps scripts right that count lines.
_LINES = {
    "Medulla": "medulla",
    "Pons": "pons",
    "SCP": None,
    "Midbrain": "midbrain",
    "Whole_brainstem": WHOLE_NAME,
}


def write_freesurfer(output_dir: Path, participants: Iterable[str]) -> None:
    """Write all complete results of some participants as FreeSurfer lays them out.

    Parameters
    ----------
    output_dir : Path
        The derivative dataset.
    participants : iterable of str
        As ``sub-01``.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    for participant in participants:
        for result in read_results(output_dir, participant):
            _write(output_dir, result)


def _write(output_dir: Path, result: Result) -> None:
    volumes = {row.name: f"{row.volume_mm3:.3f}" for row in result.volumes}
    lines = [f"{name} {volumes.get(own or '', 'nan')}\n" for name, own in _LINES.items()]
    image, label = result.outputs.stem.rsplit("_seg-", 1)
    folder = output_dir / FREESURFER_FOLDER / image / "mri"
    write_atomic(folder / f"brainstemSsVolumes.{label}.txt", "".join(lines).encode())
    codes = np.zeros(256, dtype=np.int16)
    for row in result.volumes:
        if row.index is not None:
            codes[row.index] = region(row.index, row.name).freesurfer or 0
    labels = nib.load(result.outputs.dseg)
    coded = type(labels)(codes[np.asarray(labels.dataobj)], None, labels.header)
    coded.set_data_dtype(np.int16)
    coded.header["vox_offset"] = coded.header.single_vox_offset
    write_atomic(folder / f"brainstemSsLabels.{label}.nii.gz", nifti_bytes(coded, compress=True))
