"""Results, failures and comparisons of models, read back from an output dataset.

This is the only module that reads the app's own files; each kind has a schema. Keys that a schema
does not know are ignored, and keys that a file of an earlier version lacks have defaults.

The sidecar of a label map is written last, so it marks an image as complete. `read_results` takes
images with a valid sidecar and table of volumes. `find_differences` decides whether a run may skip
an image: all its files must be there, made from the same image, models and settings.
"""

from __future__ import annotations

import logging
import math
import re
import stat
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_pascal

from bids_app.bids.columns import COMPARISON, FAILURES, VOLUMES
from bids_app.bids.labels import LABEL
from bids_app.bids.outputs import ENTITIES, PARTS_LABEL, Outputs
from bids_app.errors import ImageError, reason
from bids_app.io.files import is_file, read_bytes, status
from bids_app.io.nifti import bytes_sha256, file_sha256
from bids_app.io.tables import NOT_AVAILABLE, load_json, read_json, read_rows, read_user_table
from bids_app.regions import PARTS

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from bids_app.bids.scans import Scan
    from bids_app.io.tables import Value
    from bids_app.models.manifest import Model

LOG = logging.getLogger(__name__)
_URI = re.compile(r"bids:([^:]*):")  # start of the BIDS URI of a source image
_SIDECAR = re.compile(
    rf"^(?P<participant>sub-{LABEL})(_(?P<session>ses-{LABEL}))?(?P<rest>(_[a-z]+-{LABEL})*)"
    rf"_seg-(?P<label>{LABEL})(_desc-{LABEL})?_dseg\.json$"
)


class _File(BaseModel):
    """What all schemas share: keys in PascalCase, unknown keys ignored, immutable."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_pascal, populate_by_name=True
    )


class ModelEntry(_File):
    """A model as the sidecar of a label map describes it.

    Attributes
    ----------
    name, version, engine, license, citation : str
        Of its manifest; the engine is ``cascade``, ``nnunet`` or ``mdgru``.
    sha256 : str
        Digest of its weights.
    label : str
        In file names; only of the model that located the brainstem for another one.
    regions : tuple of str
        Names of its labels.
    mode : str
        Version of nnU-Net whose arithmetic was used, as ``v1``, or empty.
    networks : int
        Number of nnU-Nets, or 0 if that is unknown.
    largest_component : tuple of tuple of str
        Regions of which only the largest connected component was kept, step by step.
    """

    name: str = ""
    version: str = NOT_AVAILABLE
    engine: str = ""
    license: str = ""
    citation: str = ""
    sha256: str = Field("", alias="SHA256")
    label: str = ""
    regions: tuple[str, ...] = PARTS
    mode: str = ""
    networks: int = 0
    largest_component: tuple[tuple[str, ...], ...] = ()


class FileRecord(_File):
    """A file of a complete image, as it was when the image was completed.

    Attributes
    ----------
    size : int
        In bytes.
    modified : int
        Modification time in microseconds since 1970; a copy of the dataset may have another.
    sha256 : str
        Digest of its bytes.
    """

    size: int
    modified: int
    sha256: str = Field(alias="SHA256")

    @classmethod
    def of(cls, path: Path, data: bytes) -> FileRecord:
        """Describe a file that was just written."""
        return cls.model_validate(
            {
                "Size": len(data),
                "Modified": _modified(status(path)),
                "SHA256": bytes_sha256(data),
            }
        )

    def describes(self, path: Path) -> bool:
        """Whether a file is still as it was; its digest is computed only if its time differs."""
        try:
            found = status(path)
            if not stat.S_ISREG(found.st_mode) or found.st_size != self.size:
                return False
            return _modified(found) == self.modified or file_sha256(path) == self.sha256
        except (OSError, ImageError):
            return False


def _modified(found: os.stat_result) -> int:
    return found.st_mtime_ns // 1000  # nanoseconds exceed what JSON's numbers hold exactly


class Sidecar(_File):
    """Sidecar of a label map.

    Attributes
    ----------
    sources : tuple of str
        BIDS URIs.
    model : ModelEntry
        The model that made the map.
    localizer : ModelEntry or None
        The model that located the brainstem for it, if another one did.
    input_sha256 : str
        Digest of the source image's file.
    settings : dict
        Those that change a label map: ``Folds``, ``Mirroring``, ``Region``.
    device, software_versions : str
    quality : dict of str to float
        Measures, by column of `bids_app.bids.columns.QUALITY`.
    voxel_size_mm : tuple of float
        Voxel edges along x, y and z (RAS); empty if unknown. Part of ``Quality`` in the file.
    flags : tuple of str
        Keys of `bids_app.measures.flags.FLAGS`.
    flag_thresholds : dict of str to float
        Those that are not the defaults.
    warnings : tuple of str
        About the image's header.
    seconds : float or None
        Time that reading and segmenting took.
    verified : str
        When a run last wrote these files or found them complete after the image had failed, as
        `timestamp` gives it; empty in those of earlier versions.
    files : dict of str to FileRecord
        Files that it marks as complete, by name; empty in those of earlier versions.
    """

    sources: tuple[str, ...] = ()
    model: ModelEntry = Field(default_factory=lambda: ModelEntry.model_validate({}))
    localizer: ModelEntry | None = Field(
        None, validation_alias=AliasChoices("Localizer", "Locator", "localizer")
    )
    input_sha256: str = Field("", alias="InputSHA256")
    settings: dict[str, Any] = {}
    device: str = ""
    software_versions: str = ""
    quality: dict[str, float] = {}
    voxel_size_mm: tuple[float, ...] = Field((), alias="voxel_size_mm")
    flags: tuple[str, ...] = ()
    flag_thresholds: dict[str, float] = {}
    warnings: tuple[str, ...] = ()
    seconds: float | None = None
    verified: str = ""
    files: dict[str, FileRecord] = {}

    @model_validator(mode="before")
    @classmethod
    def _take_out_voxel_size(cls, content: Any) -> Any:
        """Separate the voxel size, three numbers, from the measures, one number each."""
        quality = content.get("Quality") if isinstance(content, dict) else None
        if not isinstance(quality, dict) or "voxel_size_mm" not in quality:
            return content
        others = {key: value for key, value in quality.items() if key != "voxel_size_mm"}
        return content | {"Quality": others, "voxel_size_mm": quality["voxel_size_mm"]}


@dataclass(frozen=True, slots=True)
class RegionVolume:
    """A row of ``*_volumes.tsv``: one region, or the whole brainstem (`index` is None).

    The attributes are the columns of `bids_app.bids.columns.VOLUMES`, rounded as they are written;
    None for ``n/a``.
    """

    index: int | None
    name: str
    abbreviation: str
    voxels: int
    volume_mm3: float
    label_volume_mm3: float | None = None
    clusters: int | None = None
    centroid_x_mm: float | None = None
    centroid_y_mm: float | None = None
    centroid_z_mm: float | None = None
    surface_mm2: float | None = None
    midsagittal_mm2: float | None = None
    ap_diameter_mm: float | None = None
    volume_20mm_mm3: float | None = None
    volume_sd_mm3: float | None = None

    @classmethod
    def rounded(cls, **values: Any) -> RegionVolume:
        """Make a row from full numbers; NaN becomes None."""
        return cls(**{name: _rounded(name, value) for name, value in values.items()})

    def row(self) -> dict[str, Value]:
        """Give the row by column."""
        return {name: getattr(self, name) for name in VOLUMES}


def _rounded(name: str, value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else VOLUMES[name].rounded(value)
    return value


@dataclass(frozen=True)
class Failure:
    """An image that could not be processed: a row of ``logs/*/failures.tsv``.

    Attributes
    ----------
    participant, session : str
        With their prefixes; `session` is empty if there is none.
    entities : dict of str to str
        Those of `ENTITIES` that the image's name has.
    source : str
        Path of the image in its dataset.
    model, model_version, label : str
        The model; `label` is the one in file names.
    reason : str
        One line.
    time : str
        When it failed, as `timestamp` gives it; empty if unknown.
    """

    participant: str
    session: str
    entities: Mapping[str, str]
    source: str
    model: str
    model_version: str
    label: str
    reason: str
    time: str = ""


@dataclass(frozen=True)
class ModelAgreement:
    """How two models agree on a region of one image: a row of ``*_comparison.tsv``.

    Attributes
    ----------
    participant, session, entities, source
        Of the image, as for `Failure`.
    model, model_version, other_model, other_model_version : str
        The two models.
    name : str
        Of the region.
    dice, difference_mm3, difference_percent : float or None
        Columns of `bids_app.bids.columns.COMPARISON`.
    """

    participant: str
    session: str
    entities: Mapping[str, str]
    source: str
    model: str
    model_version: str
    other_model: str
    other_model_version: str
    name: str
    dice: float | None
    difference_mm3: float | None
    difference_percent: float | None

    def row(self) -> dict[str, Value]:
        """Give the row by column of ``*_comparison.tsv``."""
        return {name: getattr(self, name) for name in COMPARISON}


@dataclass(frozen=True)
class Result:
    """A complete image in the output dataset.

    Attributes
    ----------
    outputs : Outputs
        Paths of its files.
    participant, session : str
        With their prefixes; `session` is empty if there is none.
    entities : dict of str to str
        Those of `ENTITIES` that the file name has.
    label : str
        The model's label in the file name.
    sidecar : Sidecar
        Of the label map.
    volumes : tuple of RegionVolume
        Rows of the table of volumes, the whole brainstem last.
    held_picture, held_cutout : bytes or None
        Content of the figures if this process has just made them.
    """

    outputs: Outputs
    participant: str
    session: str
    entities: Mapping[str, str]
    label: str
    sidecar: Sidecar
    volumes: tuple[RegionVolume, ...]
    held_picture: bytes | None = field(default=None, repr=False, compare=False)
    held_cutout: bytes | None = field(default=None, repr=False, compare=False)

    @property
    def source(self) -> str:
        """Path of the source image in its dataset."""
        return _URI.sub("", (self.sidecar.sources or ("",))[0], count=1)

    @property
    def source_dataset(self) -> str:
        """Name of that dataset among the links of the output dataset: ``raw`` is BIDS_DIR."""
        match = _URI.match((self.sidecar.sources or ("",))[0])
        return match[1] if match else "raw"

    @property
    def model(self) -> tuple[str, str]:
        """Name and version of the model, as in all tables and pages."""
        return self.sidecar.model.name or self.label, self.sidecar.model.version

    @property
    def verified(self) -> str:
        """When the result was last known to be complete, as `timestamp` gives it.

        For one of an earlier version, which does not state it, this is the modification time of
        its sidecar.
        """
        return self.sidecar.verified or _modification_time(self.outputs.sidecar)

    def without_figures(self) -> Result:
        """Copy the result without the content of its figures, which takes a megabyte."""
        return replace(self, held_picture=None, held_cutout=None)

    def picture(self) -> bytes | None:
        """Give the picture for the report (PNG); None if it is missing."""
        return self.held_picture or _content(self.outputs.picture)

    def cutout(self) -> bytes | None:
        """Give the cut-out for the report's viewer (NIfTI); None if it is missing."""
        return self.held_cutout or _content(self.outputs.cutout)


def timestamp(when: datetime | None = None) -> str:
    """Write a time, by default now, in UTC, so that later times sort after earlier ones."""
    return (when or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _modification_time(path: Path) -> str:
    try:
        return timestamp(datetime.fromtimestamp(status(path).st_mtime, UTC))
    except (OSError, ValueError):
        return ""


def _content(path: Path) -> bytes | None:
    try:
        return read_bytes(path)
    except OSError:
        return None


# --- reading ------------------------------------------------------------------------------


def read_results(
    output_dir: Path, participant: str | None = None, held: Iterable[Result] = ()
) -> Iterator[Result]:
    """Find all complete images, in an order that does not depend on the file system.

    Parameters
    ----------
    output_dir : Path
        The derivative dataset; participants may still be running on it.
    participant : str, optional
        Only this one, as ``sub-01``.
    held : iterable of Result
        Results that this process has just written; they are given back, not read.

    Yields
    ------
    Result
        Sorted by file name. An image with a damaged sidecar or table of volumes counts as not
        complete, and a line of the log says so. Results that another run removes meanwhile are
        skipped.
    """
    root = output_dir / participant if participant else output_dir
    patterns = ("anat", "ses-*/anat") if participant else ("sub-*/anat", "sub-*/ses-*/anat")
    paths = [
        path
        for pattern in patterns
        for path in root.glob(f"{pattern}/*_dseg.json")
        if not path.name.endswith(f"{PARTS_LABEL}_dseg.json")
    ]
    known = {result.outputs.sidecar: result for result in held}
    for path in sorted(paths, key=lambda p: p.name.removesuffix("_dseg.json")):
        if match := _SIDECAR.match(path.name):
            try:
                yield known[path] if path in known else _result(path, match)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:  # ValidationError is a ValueError
                LOG.warning(
                    "%s: damaged (%s); the image counts as not complete. Run the participant "
                    "level again to replace it",
                    path.relative_to(output_dir).as_posix(),
                    _in_one_line(error),
                )


def _result(path: Path, match: re.Match[str]) -> Result:
    content = load_json(path)
    if not content:
        raise ValueError("it is empty")
    participant, session = match["participant"], match["session"] or ""
    stem = path.name.removesuffix("_dseg.json")
    folder = path.parent.parent.parent if session else path.parent.parent
    outputs = Outputs(path.parent, stem, folder / "figures")
    pairs = [part.split("-", 1) for part in match["rest"].split("_") if part]
    return Result(
        outputs=outputs,
        participant=participant,
        session=session,
        entities={key: value for key, value in pairs if key in ENTITIES},
        label=match["label"],
        sidecar=Sidecar.model_validate(content),
        volumes=read_volumes(outputs.volumes),
    )


_NAMES = tuple(field.name for field in fields(RegionVolume))
_NEEDED = {"name", "volume_mm3"}


def read_volumes(path: Path) -> tuple[RegionVolume, ...]:
    """Read a table of volumes.

    Raises
    ------
    OSError, ValueError
        As for `bids_app.io.tables.read_rows`, or there is no row, or one without name or volume.
    """
    rows = read_rows(path, VOLUMES)
    if not rows:
        raise ValueError(f"{path.name}: it has no row")
    for row in rows:
        if any(row[name] is None for name in _NEEDED):
            raise ValueError(f"{path.name}: a row has no {' or no '.join(sorted(_NEEDED))}")
    return tuple(RegionVolume(*(row[name] for name in _NAMES)) for row in rows)


def _in_one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return " ".join(reason(error).split())


def read_failures(output_dir: Path) -> list[Failure]:
    """Read the failures on record; of an image and model the latest counts.

    An image that failed may have been completed by another run. A damaged table is skipped, and a
    line of the log says so.
    """
    failures: dict[tuple[str, str], Failure] = {}
    for path in sorted(output_dir.glob("logs/*/failures.tsv")):
        try:
            for row in read_user_table(path)[1]:
                failure = _failure(row, path.parent.name)
                failures[failure.label, failure.source] = failure
        except (ValueError, KeyError) as error:
            LOG.warning("%s: damaged (%s), skipped", path, _in_one_line(error))
    return list(failures.values())


def _failure(row: Mapping[str, str], run: str) -> Failure:
    texts = {
        name: str(column.parse(row.get(name)) or NOT_AVAILABLE) for name, column in FAILURES.items()
    }
    if NOT_AVAILABLE in (texts["participant_id"], texts["source"], texts["label"]):
        raise ValueError("a row has no participant_id, source or label")
    return Failure(
        participant=texts["participant_id"],
        session=texts["session_id"].replace(NOT_AVAILABLE, ""),
        entities={key: texts[key] for key in ENTITIES if texts[key] != NOT_AVAILABLE},
        source=texts["source"],
        model=texts["model"],
        model_version=texts["model_version"],
        label=texts["label"],
        reason=texts["reason"],
        time=texts["time"] if texts["time"] != NOT_AVAILABLE else _start_time(run),
    )


def _start_time(run: str) -> str:
    """When a run of an earlier version began, whose table has no times; empty if unknown."""
    try:
        return timestamp(datetime.strptime(run.partition("_")[0], "%Y%m%d-%H%M%S"))
    except ValueError:
        return ""


def keep_newest(
    results: Iterable[Result], failures: Iterable[Failure]
) -> tuple[list[Result], list[Failure]]:
    """Keep of each image and model what happened last: its result or its failure.

    An image that was complete may have been replaced by one that cannot be processed; its old
    volumes are not those of the image that is there now.
    """
    failed = {(failure.label, failure.source): failure for failure in failures}
    newest: list[Result] = []
    for result in results:
        if failed:  # of a folder that could not be read, but has been read since
            for folder in PurePosixPath(result.source).parents:
                of_folder = failed.get((result.label, str(folder)))
                if of_folder is not None and of_folder.time <= result.verified:
                    del failed[result.label, str(folder)]
        failure = failed.get((result.label, result.source)) if failed else None
        if failure is None:
            newest.append(result)
        elif failure.time <= result.verified:
            newest.append(result)
            del failed[result.label, result.source]
    return newest, list(failed.values())


def fails_since(outputs: Outputs, failure: Failure) -> bool:
    """Whether a failure is newer than the complete result of its image."""
    verified = str(read_json(outputs.sidecar).get("Verified", ""))
    return failure.time > (verified or _modification_time(outputs.sidecar))


def read_agreement(results: Iterable[Result]) -> list[ModelAgreement]:
    """Read how models agree on the images of some results that several models have segmented.

    A damaged table is skipped, and a line of the log says so.
    """
    rows: list[ModelAgreement] = []
    for of_image in by_image(results):
        first = of_image[0]
        path = first.outputs.comparison
        if len(of_image) > 1 and is_file(path):
            try:
                rows += [agreement(first, **row) for row in read_rows(path, COMPARISON)]
            except (OSError, ValueError) as error:
                LOG.warning("%s: damaged (%s), skipped", path, _in_one_line(error))
    return rows


def agreement(image: Result, **values: Any) -> ModelAgreement:
    """Make a row about the image of a result; `values` are those of `COMPARISON`."""
    return ModelAgreement(
        image.participant, image.session, image.entities, image.source, **values
    )  # fmt: skip


def by_image(results: Iterable[Result]) -> list[list[Result]]:
    """Group results by their image; those of an image are sorted by label."""
    images: dict[Path, list[Result]] = {}
    for result in results:
        images.setdefault(result.outputs.comparison, []).append(result)
    return [sorted(of_image, key=lambda result: result.label) for of_image in images.values()]


# --- what a run would make, and what is there ----------------------------------------------


def find_differences(
    outputs: Outputs, input_sha256: str, models: dict[str, Any], settings: dict[str, Any], *,
    probabilities: bool,
) -> dict[str, tuple[Any, Any]] | None:  # fmt: skip
    """Compare models and settings of existing results with those of a run.

    Parameters
    ----------
    outputs : Outputs
        Where the results are.
    input_sha256 : str
        Digest of the source image's file.
    models : dict of str to dict
        Those of the run, by their keys in the sidecar.
    settings : dict
        Those settings that change the result, as in the sidecar.
    probabilities : bool
        Whether probability maps are wanted.

    Returns
    -------
    dict of str to tuple, or None
        Old and new value of each setting or model that differs; if empty, the image is complete.
        None if there are no complete results of this input: files are missing, damaged, or not
        as they were written.
    """
    if not all(is_file(path) for path in outputs.expected(probabilities=False)):
        return None
    sidecar = read_json(outputs.sidecar)
    if find_changed(outputs, sidecar):
        return None
    if "Locator" in sidecar:  # the name of earlier versions
        sidecar.setdefault("Localizer", sidecar.pop("Locator"))
    old_models = {name: part for name, part in sidecar.items() if isinstance(part, dict)}
    if sidecar.get("InputSHA256") != input_sha256 or "Model" not in old_models:
        return None
    # Results without a localizer were made without the setting Region, which differs then.
    weights = {
        name: (_in_short(old_models[name]), _in_short(model))
        for name, model in models.items()
        if name in old_models and old_models[name].get("SHA256") != model["SHA256"]
    }
    old = old_models.get("Settings", {})
    names = dict.fromkeys([*settings, *old])
    differing = weights | {
        name: (old.get(name), settings.get(name))
        for name in names
        if old.get(name) != settings.get(name)
    }
    if differing or all(is_file(path) for path in outputs.expected(probabilities=probabilities)):
        return differing
    return None


def find_changed(outputs: Outputs, sidecar: dict[str, Any] | None = None) -> list[Path]:
    """Find files of an image that are damaged, or not as its sidecar recorded them.

    Parameters
    ----------
    outputs : Outputs
        Where the files are.
    sidecar : dict, optional
        Content of the sidecar, if it was read before.

    Returns
    -------
    list of Path
        Files that are missing are not among them. Results of earlier versions have no record:
        their sidecar and table of volumes must be readable.
    """
    try:
        content = read_json(outputs.sidecar) if sidecar is None else sidecar
        record = Sidecar.model_validate(content).files
    except ValidationError:
        return [outputs.sidecar]
    paths = {outputs.folder / name: known for name, known in record.items() if "/" not in name}
    changed = [path for path, known in paths.items() if path.exists() and not known.describes(path)]
    if outputs.volumes not in paths:
        try:
            read_volumes(outputs.volumes)
        except FileNotFoundError:
            pass
        except (OSError, ValueError):
            changed.append(outputs.volumes)
    return changed


def _in_short(model: dict[str, Any]) -> str:
    return f"{model.get('Name')} {model.get('Version')} ({str(model.get('SHA256'))[:8]})"


def source_uri(scan: Scan) -> str:
    """BIDS URI of a source image."""
    return f"bids:{scan.dataset}:{scan.relative}"


def model_entry(model: Model) -> dict[str, Any]:
    """Describe a model as sidecars do; `ModelEntry` reads it."""
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
