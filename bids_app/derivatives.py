"""The derivative dataset: names of its files, their contents, and how results are found again.

Only this module knows file names of outputs. It follows the BIDS specification's derivatives
(https://bids-specification.readthedocs.io/en/stable/derivatives/introduction.html): the method is
told by ``seg-<label>``, maps stand in the native space of their source, and references are BIDS
URIs. The sidecar of the label map is written last; it marks an image as complete.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bids_app.scans import ENTITIES as SCAN_ENTITIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bids_app.models.store import Model
    from bids_app.scans import Scan

ENTITIES = SCAN_ENTITIES[2:]  # beside participant and session, which have columns of their own
WHOLE, SELECTION = "group", "selection"  # stems of the tables and the page of the group level
GROUP_TABLE = f"{WHOLE}_volumes.tsv"
GROUP_REPORT = f"{WHOLE}.html"
RATINGS = f"{WHOLE}_ratings.tsv"
FREESURFER_FOLDER = "freesurfer"
NOT_AVAILABLE = "n/a"

_SIDECAR = re.compile(
    r"^(?P<participant>sub-[A-Za-z0-9]+)(_(?P<session>ses-[A-Za-z0-9]+))?(?P<rest>(_[a-z]+-[A-Za-z0-9+]+)*)"
    r"_seg-(?P<label>[A-Za-z0-9]+)_dseg\.json$"
)


@dataclass(frozen=True)
class Outputs:
    """Paths of all files that belong to one image and one model.

    Attributes
    ----------
    folder : Path
        The image's ``anat`` folder in the output dataset.
    stem : str
        File names up to and with ``seg-<label>``.
    figures : Path
        The participant's folder of pictures.
    """

    folder: Path
    stem: str
    figures: Path

    @classmethod
    def of(cls, output_dir: Path, scan: Scan, label: str) -> Outputs:
        """Name the files for a scan and a model's label."""
        participant = output_dir / scan.participant
        session = participant / scan.session if scan.session else participant
        stem = "_".join(f"{key}-{value}" for key, value in scan.entities)
        return cls(session / "anat", f"{stem}_seg-{label}", participant / "figures")

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
        """Probability maps, one volume a label."""
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

    @property
    def comparison(self) -> Path:
        """Table of how this image's models agree, one for all of them."""
        return self.folder / f"{self.stem.rpartition('_seg-')[0]}_comparison.tsv"

    @property
    def comparison_sidecar(self) -> Path:
        """Data dictionary of the table of how models agree."""
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
        """Files that a complete image has, the sidecar first."""
        files = (
            self.sidecar, self.dseg, self.volumes, self.volumes_sidecar, self.picture, self.cutout,
        )  # fmt: skip
        return (*files, self.probseg, self.probseg_sidecar) if probabilities else files


@dataclass(frozen=True)
class GroupFiles:
    """Paths of what the group level writes.

    Attributes
    ----------
    folder : Path
        The output dataset.
    stem : str
        `WHOLE`, or `SELECTION` where the user chose results of the folder.
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


def other_settings(
    outputs: Outputs, input_sha256: str, models: dict[str, Any], settings: dict[str, Any], *,
    probabilities: bool,
) -> dict[str, tuple[Any, Any]] | None:  # fmt: skip
    """Tell by which models and settings an image's results that are there differ from those wanted.

    Parameters
    ----------
    outputs : Outputs
        Where the results are to stand.
    input_sha256 : str
        Digest of the source image's bytes.
    models : dict of str to dict
        Those that would be used, by their names in the sidecar.
    settings : dict
        Those settings that change the result, as in the sidecar.
    probabilities : bool
        Whether probability maps are wanted.

    Returns
    -------
    dict of str to tuple, or None
        Setting or model there and that wanted, by name: without an entry, the image is complete.
        None where there are no complete results of this input.
    """
    if not all(path.is_file() for path in outputs.expected(probabilities=False)):
        return None
    sidecar = read_json(outputs.sidecar)
    told = {name: part for name, part in sidecar.items() if isinstance(part, dict)}
    if sidecar.get("InputSHA256") != input_sha256 or "Model" not in told:
        return None
    # Where no locator is told, it is a setting that differs: the results are not of a region
    weights = {
        name: (_in_short(told[name]), _in_short(model))
        for name, model in models.items()
        if name in told and told[name].get("SHA256") != model["SHA256"]
    }
    there = told.get("Settings", {})
    names = dict.fromkeys([*settings, *there])
    differing = weights | {
        name: (there.get(name), settings.get(name))
        for name in names
        if there.get(name) != settings.get(name)
    }
    if differing or all(path.is_file() for path in outputs.expected(probabilities=probabilities)):
        return differing
    return None


def _in_short(model: dict[str, Any]) -> str:
    return f"{model.get('Name')} {model.get('Version')} ({str(model.get('SHA256'))[:8]})"


def source_uri(scan: Scan) -> str:
    """BIDS URI of a source image."""
    return f"bids:raw:{scan.relative}"


def model_entry(model: Model) -> dict[str, Any]:
    """Describe a model as sidecars do."""
    of_nnunet: dict[str, Any] = {}
    if model.engine == "nnunet":
        # Not at the top: it brings scipy, which most of what names files can do without.
        from bids_app.engines.nnunet.postprocessing import read_steps

        of_nnunet = {"Mode": model.mode, "Networks": len(model.folds)}
        if steps := read_steps(model.folder):
            names = {region.index: region.name for region in model.regions}
            of_nnunet["LargestComponent"] = [
                [names.get(value, f"label {value}") for value in step.classes] for step in steps
            ]
    return {
        "Name": model.name,
        "Version": model.version,
        "Engine": model.engine,
        **of_nnunet,
        "Regions": [region.name for region in model.regions],
        "SHA256": model.sha256,
        "License": model.licence,
        "Citation": model.reference,
    }


def dump_json(content: dict[str, Any]) -> bytes:
    """Write JSON as all files of the dataset have it."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def number(value: float | None, digits: int = 3) -> str:
    """Write a number for a table; ``n/a`` where there is none."""
    return NOT_AVAILABLE if value is None else f"{value:.{digits}f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """Write a table as tab-separated values, UTF-8."""
    lines = ("\t".join(row) for row in (header, *rows))
    return ("\n".join(lines) + "\n").encode()


@dataclass(frozen=True)
class Result:
    """One complete image in the output dataset.

    Attributes
    ----------
    sidecar_path : Path
        Sidecar of the label map.
    participant, session : str
        With their prefixes; `session` is empty where there is none.
    entities : dict of str to str
        Those of `ENTITIES` that the file name has.
    label : str
        The model's label in the file name.
    sidecar : dict
        Content of the sidecar.
    """

    sidecar_path: Path
    participant: str
    session: str
    entities: dict[str, str]
    label: str
    sidecar: dict[str, Any]

    @cached_property
    def outputs(self) -> Outputs:
        """Paths of all files of this image and model."""
        folder = self.sidecar_path.parent
        participant = folder.parent.parent if self.session else folder.parent
        stem = self.sidecar_path.name.removesuffix("_dseg.json")
        return Outputs(folder, stem, participant / "figures")

    @property
    def source(self) -> str:
        """Path of the source image in its dataset."""
        sources = self.sidecar.get("Sources") or [""]
        return str(sources[0]).removeprefix("bids:raw:")

    @property
    def model(self) -> tuple[str, str]:
        """Name and version of its model, as all tables and pages tell it."""
        model = self.sidecar.get("Model")
        model = model if isinstance(model, dict) else {}
        return str(model.get("Name", self.label)), str(model.get("Version", NOT_AVAILABLE))

    def volumes(self) -> list[dict[str, str]]:
        """Rows of the table of volumes, the whole brainstem last."""
        return read_table(self.outputs.volumes)


def read_table(path: Path) -> list[dict[str, str]]:
    """Read the rows of a table that `table` wrote."""
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    header = lines[0].split("\t")
    return [dict(zip(header, line.split("\t"), strict=True)) for line in lines[1:]]


def read_results(output_dir: Path, participant: str | None = None) -> Iterator[Result]:
    """Find all complete images, in an order that does not depend on the file system.

    Parameters
    ----------
    output_dir : Path
        The derivative dataset.
    participant : str, optional
        Only this one, as ``sub-01``.

    Yields
    ------
    Result
        Sorted by file name. Results that vanish meanwhile, as a run makes them again, are
        passed over.
    """
    root = output_dir / participant if participant else output_dir
    patterns = ("anat", "ses-*/anat") if participant else ("sub-*/anat", "sub-*/ses-*/anat")
    paths = [p for pattern in patterns for p in root.glob(f"{pattern}/*_dseg.json")]
    for path in sorted(paths, key=lambda p: p.name):
        match = _SIDECAR.match(path.name)
        if not match or not (sidecar := read_json(path)):
            continue
        pairs = [part.split("-", 1) for part in match["rest"].split("_") if part]
        yield Result(
            sidecar_path=path,
            participant=match["participant"],
            session=match["session"] or "",
            entities={key: value for key, value in pairs if key in ENTITIES},
            label=match["label"],
            sidecar=sidecar,
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
