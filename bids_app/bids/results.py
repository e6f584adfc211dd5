"""Results in an output dataset: found again, and compared with what a run would make.

The sidecar of a label map is written last, so it marks an image as complete.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bids_app.bids.outputs import ENTITIES, Outputs
from bids_app.io.tables import NOT_AVAILABLE, read_json, read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SIDECAR = re.compile(
    r"^(?P<participant>sub-[A-Za-z0-9]+)(_(?P<session>ses-[A-Za-z0-9]+))?(?P<rest>(_[a-z]+-[A-Za-z0-9+]+)*)"
    r"_seg-(?P<label>[A-Za-z0-9]+)_dseg\.json$"
)


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
