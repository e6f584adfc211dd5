"""Top-level files of the derivative dataset: ownership, description and label legends.

Follows https://bids-specification.readthedocs.io/en/stable/derivatives/introduction.html and the
legend of label values of https://bids-specification.readthedocs.io/en/stable/derivatives/imaging.html
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_app.bids.freesurfer import DATASET as FREESURFER
from bids_app.bids.outputs import (
    FREESURFER_FOLDER,
    GROUP_REPORT,
    GROUP_TABLE,
    PARTS_LABEL,
    RATINGS,
)
from bids_app.errors import DatasetError, OutputError, UsageError, reason
from bids_app.io.files import check_inside, read_bytes, status, write_if_changed
from bids_app.io.tables import NOT_AVAILABLE, dump_json, load_json, read_json, table
from bids_app.models.manifest import NOT_STATED
from bids_app.regions import parts_map
from bids_app.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bids_app.models.manifest import Model
    from bids_app.regions import Region

APP_NAME = "brainstem BIDS App"
BIDS_VERSION = "1.10.0"
IGNORED = (
    "*.html",
    "figures",
    "*_volumes.tsv",
    "*_volumes.json",
    "*_comparison.tsv",
    "*_comparison.json",
    "*_longitudinal.tsv",
    "*_longitudinal.json",
    "*_ratings.tsv",
    FREESURFER_FOLDER,
    "logs",
    ".*",
)


def check_source(bids_dir: Path) -> None:
    """Check that BIDS_DIR is the top folder of a dataset.

    Raises
    ------
    DatasetError
        It is not.
    """
    if not bids_dir.is_dir():
        raise DatasetError(f"BIDS_DIR {bids_dir} is not a folder.")
    if not (bids_dir / "dataset_description.json").is_file():
        raise DatasetError(
            f"BIDS_DIR {bids_dir} has no dataset_description.json, so it is not a BIDS dataset. "
            "Give the dataset's top folder."
        )


def claim(output_dir: Path, bids_dir: Path) -> None:
    """Create the output folder, or check that it can be written and belongs to this source.

    Raises
    ------
    UsageError
        As for `check_owner`.
    OutputError
        It cannot be written, or holds another dataset or results of another source.
    """
    check_owner(output_dir, bids_dir)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"OUTPUT_DIR {output_dir} cannot be created ({error.strerror})."
        ) from None
    if not os.access(output_dir, os.W_OK | os.X_OK):
        raise OutputError(f"OUTPUT_DIR {output_dir} cannot be written. Check its permissions.")


def check_owner(output_dir: Path, bids_dir: Path) -> None:
    """Refuse a folder that is not for these results; write nothing.

    Raises
    ------
    UsageError
        It is BIDS_DIR itself, or lies inside the folder of a participant.
    OutputError
        It holds another dataset or results of another source, a folder in it is a link that leads
        out of it, or its path is a loop of links or too long.
    """
    try:
        output, source = output_dir.resolve(), bids_dir.resolve()
        with suppress(FileNotFoundError, NotADirectoryError):
            status(output)
    except (OSError, RuntimeError) as error:  # of links that lead around in circles
        raise OutputError(
            f"OUTPUT_DIR {output_dir} cannot be used ({reason(error)}). Choose another folder."
        ) from None
    if output == source:
        raise UsageError(
            "OUTPUT_DIR is BIDS_DIR. Choose another folder, such as BIDS_DIR/derivatives/brainstem."
        )
    if source in output.parents and output.relative_to(source).parts[0].startswith("sub-"):
        raise UsageError(
            f"OUTPUT_DIR {output_dir} lies inside a participant's source data. Choose another "
            "folder, such as BIDS_DIR/derivatives/brainstem."
        )
    shared = ("logs", "logs/slurm", FREESURFER_FOLDER)
    check_inside(output_dir, (output_dir / name for name in shared))
    path = output_dir / "dataset_description.json"
    if not path.exists():
        return
    try:
        found = load_json(path)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{path} is damaged ({reason(error)}), so it does not say whose results these are. "
            "Restore it, or remove it if the folder holds results of this app alone."
        ) from None
    generators = [
        entry.get("Name") for entry in _list(found.get("GeneratedBy")) if isinstance(entry, dict)
    ]
    if APP_NAME not in generators:
        raise OutputError(f"OUTPUT_DIR {output_dir} holds another dataset. Choose another folder.")
    links = found.get("DatasetLinks")
    link = links.get("raw") if isinstance(links, dict) else None
    same_place = isinstance(link, str) and (output_dir / link).resolve() == bids_dir.resolve()
    # The same source may be seen under another path, as in a container.
    first = next(iter(_list(found.get("SourceDatasets"))), None)
    same_text = isinstance(first, dict) and first.get("DescriptionSHA256") == _source_digest(
        bids_dir
    )
    if not (same_place or same_text):
        raise OutputError(
            f"OUTPUT_DIR {output_dir} holds results of another source dataset "
            f"({found.get('Name', 'unnamed')}). Choose another folder."
        )


def read_name(dataset: Path) -> str:
    """Read the name of a dataset from its description; empty if there is none."""
    return str(read_json(dataset / "dataset_description.json").get("Name", ""))


def read_makers(dataset: Path) -> str:
    """Read which software made a derivative dataset; empty for one that is none."""
    content = read_json(dataset / "dataset_description.json")
    if str(content.get("DatasetType", "")).lower() != "derivative":
        return ""
    entries = [entry for entry in _list(content.get("GeneratedBy")) if isinstance(entry, dict)]
    words = (f"{entry.get('Name', '')} {entry.get('Version', '')}".strip() for entry in entries)
    return ", ".join(word for word in words if word) or "unnamed software"


def write_dataset_files(
    output_dir: Path, bids_dir: Path, model: Model, *, freesurfer_dir: Path | None = None
) -> None:
    """Write the files at the top of the dataset, each only if it changes."""
    check_owner(output_dir, bids_dir)  # another run may have claimed it meanwhile
    raw = read_json(bids_dir / "dataset_description.json")
    path = output_dir / "dataset_description.json"
    there = read_json(path)
    generators = _generators(there, model)
    description = _description(output_dir, bids_dir, raw, generators)
    links = there.get("DatasetLinks")
    kept = links.get(FREESURFER) if isinstance(links, dict) else None
    if freesurfer_dir is not None:
        kept = _link(freesurfer_dir, output_dir)
    if kept:
        description["DatasetLinks"][FREESURFER] = kept
    write_if_changed(path, dump_json(description))
    write_if_changed(output_dir / "README.md", _README.encode())
    write_if_changed(output_dir / ".bidsignore", ("\n".join(IGNORED) + "\n").encode())
    write_if_changed(output_dir / f"seg-{model.label}_dseg.tsv", _legend(model.regions))
    if model.parts:
        name = f"seg-{model.label}{PARTS_LABEL}_dseg.tsv"
        write_if_changed(output_dir / name, _legend(parts_map(model.parts)))


def _legend(labels: Iterable[Region]) -> bytes:
    """Make the table of the values of a label map."""
    rows = [
        [str(r.index), r.name, r.abbreviation, r.color, str(r.index),
         NOT_AVAILABLE if r.freesurfer is None else str(r.freesurfer)]
        for r in labels
    ]  # fmt: skip
    header = ("index", "name", "abbreviation", "color", "mapping", "freesurfer")
    return table(header, [["0", "background", "BG", "#000000", "0", "0"], *rows])


def _generators(there: dict[str, Any], model: Model) -> list[dict[str, Any]]:
    """List the app, the model, and what is listed already, such as other models."""
    app = {
        "Name": APP_NAME,
        "Version": __version__,
        "Description": "Segments midbrain, pons and medulla on MRI of the head.",
    }
    own = {
        "Name": model.name,
        "Version": model.version,
        "Description": f"Model of the maps named seg-{model.label}. {model.reference}".rstrip(),
        "License": model.licence,
    }
    others = {
        (str(entry.get("Name")), str(entry.get("Version"))): entry
        for entry in _list(there.get("GeneratedBy"))
        if isinstance(entry, dict) and entry.get("Name") != APP_NAME
    }
    found = others | {(model.name, model.version): own}
    return [app, *(found[key] for key in sorted(found))]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _description(
    output_dir: Path, bids_dir: Path, raw: dict[str, Any], generators: list[dict[str, Any]]
) -> dict[str, Any]:
    source: dict[str, str] = {}
    if doi := str(raw.get("DatasetDOI", "")).removeprefix("doi:"):
        source["DOI"] = f"doi:{doi}" if doi.startswith("10.") else doi
    source["DescriptionSHA256"] = _source_digest(bids_dir)
    of_models = [
        f"model {entry.get('Name', '')} {entry.get('Version', '')}: {entry['License']}"
        for entry in generators
        if "License" in entry
    ]
    return {
        "Name": f"Brainstem regions of: {raw.get('Name', bids_dir.resolve().name)}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        # Stated, not judged: which licence applies to a map depends on both.
        "License": "; ".join([f"source dataset: {raw.get('License') or NOT_STATED}", *of_models]),
        "GeneratedBy": generators,
        "SourceDatasets": [source],
        "DatasetLinks": {"raw": _link(bids_dir, output_dir)},
    }


def _link(dataset: Path, output_dir: Path) -> str:
    return Path(os.path.relpath(dataset.resolve(), output_dir.resolve())).as_posix()


def _source_digest(bids_dir: Path) -> str:
    try:
        return hashlib.sha256(read_bytes(bids_dir / "dataset_description.json")).hexdigest()
    except OSError:
        return ""


_README = f"""# Brainstem regions

Midbrain, pons and medulla oblongata on MRI, made by the {APP_NAME}. A model may
have other regions, too: `seg-<model>_dseg.tsv` lists those of each model.

- `sub-*/[ses-*/]anat/*_seg-<model>[_desc-<suffix>]_dseg.nii.gz`: label map on the voxel grid of
  its source image (`desc` names the suffix of images that are not T1w);
  values and names are in `seg-<model>_dseg.tsv`. Its sidecar records source, model, settings and
  software, and is written last: an image without it is not complete.
- `*_seg-<model>parts_dseg.nii.gz`, with `*_seg-<model>parts_volumes.tsv`, of a model that has
  parts: tegmentum and tectum, which make up the midbrain, and the superior and middle cerebellar
  peduncle of each side, which do not count in the brainstem; see `seg-<model>parts_dseg.tsv`.
- `*_probseg.nii.gz` (on request): one probability map per label, in the order of `LabelMap`.
- `*_volumes.tsv`: voxels, volume, clusters and centroid of each region.
- `{GROUP_TABLE}`: one row per image and model; columns are explained in the JSON file beside it.
- `group_longitudinal.tsv`: change since the first session, for participants with several.
- `{RATINGS}`: ratings that a person exported from `{GROUP_REPORT}`, if put here.
- `selection*`: the same for a selection of participants, sessions or models.
- `{FREESURFER_FOLDER}/` (on request): the same in the layout of FreeSurfer's brainstem module.
- `sub-*.html`, `{GROUP_REPORT}`: reports.
- `logs/`: settings, log and failures of each run, and what to cite.

For research only; not a medical device.
"""
