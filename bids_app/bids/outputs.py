"""Names of the files of the derivative dataset.

They follow the derivatives chapter of the BIDS specification
(https://bids-specification.readthedocs.io/en/stable/derivatives/introduction.html):
``seg-<label>`` names the method, ``desc-<suffix>`` an image that is not T1w, and maps are in the
native space of their source. The sidecar of the label map is written last; it marks an image as
complete.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_app.bids.labels import T1W
from bids_app.bids.scans import ENTITIES as SCAN_ENTITIES
from bids_app.io.files import owned_name

if TYPE_CHECKING:
    from pathlib import Path

    from bids_app.bids.scans import Scan

ENTITIES = SCAN_ENTITIES[2:]  # beside participant and session, which have columns of their own
WHOLE, SELECTION = "group", "selection"  # stems of the tables and the page of the group level
GROUP_TABLE = f"{WHOLE}_volumes.tsv"
GROUP_REPORT = f"{WHOLE}.html"
RATINGS = f"{WHOLE}_ratings.tsv"
_MOST_BYTES = 255  # of a file name, on all common file systems
FREESURFER_FOLDER = "freesurfer"
PARTS_LABEL = "parts"  # follows a model's label in the names of its maps of parts


@dataclass(frozen=True)
class Outputs:
    """Paths of all files of one image and one model.

    Attributes
    ----------
    folder : Path
        The image's ``anat`` folder in the output dataset.
    stem : str
        File names up to and including ``seg-<label>`` and ``desc-<label>``.
    figures : Path
        The participant's folder of pictures.
    parts : bool
        The model has parts, which stand in a map of their own.
    """

    folder: Path
    stem: str
    figures: Path
    parts: bool = False

    @classmethod
    def of(cls, output_dir: Path, scan: Scan, label: str, *, parts: bool = False) -> Outputs:
        """Name the files for a scan and a model's label, of a model with or without parts.

        A label map has no entity for the suffix of its image. As BIDS has it for files that would
        share a name, ``desc-`` distinguishes maps of other images from those of T1w images, and
        maps of derivatives from those of raw images.
        """
        participant = output_dir / scan.participant
        session = participant / scan.session if scan.session else participant
        stem = "_".join(f"{key}-{value}" for key, value in scan.entities if key != "desc")
        described = scan.desc + ("" if scan.suffix == T1W else scan.suffix)
        stem += f"_seg-{label}{f'_desc-{described}' if described else ''}"
        return cls(session / "anat", stem, participant / "figures", parts)

    def _path(self, ending: str) -> Path:
        return self.folder / f"{self.stem}_{ending}"

    @property
    def dseg(self) -> Path:
        """Label map."""
        return self._path("dseg.nii.gz")

    @property
    def sidecar(self) -> Path:
        """Sidecar of the label map; written last."""
        return self._path("dseg.json")

    @property
    def probseg(self) -> Path:
        """Probability maps, one volume per label."""
        return self._path("probseg.nii.gz")

    @property
    def probseg_sidecar(self) -> Path:
        """Sidecar of the probability maps."""
        return self._path("probseg.json")

    @property
    def volumes(self) -> Path:
        """Table of volumes."""
        return self._path("volumes.tsv")

    @property
    def volumes_sidecar(self) -> Path:
        """Data dictionary of the table of volumes."""
        return self._path("volumes.json")

    def split_stem(self) -> tuple[str, str, str]:
        """Split the stem: the image, the model's label, and ``_desc-<label>`` or nothing."""
        image, _, rest = self.stem.rpartition("_seg-")
        label, mark, described = rest.partition("_desc-")
        return image, label, mark + described

    def _of_parts(self, ending: str) -> Path:
        """Name a file of the parts: the model's label is followed by `PARTS_LABEL`."""
        image, label, described = self.split_stem()
        return self.folder / f"{image}_seg-{label}{PARTS_LABEL}{described}_{ending}"

    @property
    def parts_dseg(self) -> Path:
        """Label map of the parts."""
        return self._of_parts("dseg.nii.gz")

    @property
    def parts_sidecar(self) -> Path:
        """Sidecar of the label map of the parts."""
        return self._of_parts("dseg.json")

    @property
    def parts_volumes(self) -> Path:
        """Table of volumes of the parts."""
        return self._of_parts("volumes.tsv")

    @property
    def parts_volumes_sidecar(self) -> Path:
        """Data dictionary of that table."""
        return self.parts_volumes.with_suffix(".json")

    @property
    def comparison(self) -> Path:
        """Table of how models agree on this image, one table for all of them."""
        image, _, described = self.split_stem()
        return self.folder / f"{image}{described}_comparison.tsv"

    @property
    def comparison_sidecar(self) -> Path:
        """Data dictionary of that table."""
        return self.comparison.with_suffix(".json")

    @property
    def picture(self) -> Path:
        """Picture for the report."""
        return self.figures / f"{self.stem}_dseg.png"

    @property
    def cutout(self) -> Path:
        """Part of the image and the label map around the brainstem, for the report's viewer."""
        return self.figures / f"{self.stem}_cutout.nii.gz"

    @property
    def lock(self) -> Path:
        """Lock that a run holds while it works on this image."""
        return self.folder / f".{self.stem}.lock"

    def expected(self, *, probabilities: bool) -> tuple[Path, ...]:
        """Files of a complete image, the sidecar first."""
        files: tuple[Path, ...] = (
            self.sidecar, self.dseg, self.volumes, self.volumes_sidecar, self.picture, self.cutout,
        )  # fmt: skip
        if self.parts:
            files += (
                self.parts_dseg, self.parts_sidecar, self.parts_volumes, self.parts_volumes_sidecar,
            )  # fmt: skip
        return (*files, self.probseg, self.probseg_sidecar) if probabilities else files

    @property
    def too_long(self) -> bool:
        """Whether a file name, under which it is first written, exceeds what file systems allow."""
        names = (owned_name(path.name) for path in self.expected(probabilities=True))
        return any(len(os.fsencode(name)) > _MOST_BYTES for name in names)


@dataclass(frozen=True)
class GroupFiles:
    """Paths of the files that the group level writes.

    Attributes
    ----------
    folder : Path
        The output dataset.
    stem : str
        `WHOLE`, or `SELECTION` if the user chose some results of the folder.
    """

    folder: Path
    stem: str = WHOLE

    @property
    def volumes(self) -> Path:
        """Table of volumes."""
        return self.folder / f"{self.stem}_volumes.tsv"

    @property
    def longitudinal(self) -> Path:
        """Table of changes between sessions."""
        return self.folder / f"{self.stem}_longitudinal.tsv"

    @property
    def comparison(self) -> Path:
        """Table of how models agree."""
        return self.folder / f"{self.stem}_comparison.tsv"

    @property
    def report(self) -> Path:
        """The page."""
        return self.folder / f"{self.stem}.html"


def report_name(participant: str) -> str:
    """Name of a participant's report at the top of the dataset."""
    return f"{participant}.html"
