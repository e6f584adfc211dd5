"""The settings of one run."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_app.io.files import run_token

if TYPE_CHECKING:
    from bids_app.models.manifest import Model

POSITIONAL = ("bids_dir", "output_dir", "level")
LEVELS = ("participant", "group")
# Settings that mean something at one level alone. Those of the run itself, and what every BIDS App
# takes at every level, are not among them, so that the same words may be given to both.
OF_ONE_LEVEL = {
    "bids_filter_file": "participant",
    "bids_database_dir": "participant",
    "include_ce": "participant",
    "device": "participant",
    "float32": "participant",
    "folds": "participant",
    "no_tta": "participant",
    "region": "participant",
    "write_probabilities": "participant",
    "assume_ras": "participant",
    "freesurfer_stats": "participant",
    "force": "participant",
    "stop_on_first_crash": "participant",
    "reports_only": "participant",
    "covariates": "group",
    "norms": "group",
}


@dataclass(frozen=True)
class Settings:
    """All that the command line and the configuration file say.

    The fields are the options of ``bids_app`` by name; ``bids_app --help`` explains each.
    """

    bids_dir: Path
    output_dir: Path
    level: str
    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    bids_filter_file: Path | None = None
    skip_bids_validation: bool = False
    bids_database_dir: Path | None = None
    work_dir: Path | None = None
    nprocs: int = 1
    omp_nthreads: int = 1
    device: str = "auto"
    model: tuple[str, ...] = ()
    models_dir: Path | None = None
    float32: bool = False
    folds: tuple[str, ...] = ()
    no_tta: bool = False
    region: bool = False
    write_probabilities: bool = False
    include_ce: bool = False
    assume_ras: bool = False
    force: bool = False
    dry_run: bool = False
    stop_on_first_crash: bool = False
    reports_only: bool = False
    covariates: tuple[str, ...] = ()
    norms: Path | None = None
    flag_threshold: tuple[str, ...] = ()
    freesurfer_stats: bool = False
    verbose: int = 0

    @cached_property
    def run_id(self) -> str:
        """Name of this run: the time it began (UTC) and eight hexadecimal digits."""
        return f"{datetime.now(UTC):%Y%m%d-%H%M%S}_{run_token()}"

    @property
    def run_folder(self) -> Path:
        """Where the log and the settings of this run are kept."""
        return self.output_dir / "logs" / self.run_id

    def asked_for(self, participants: set[str]) -> list[str]:
        """Those of some participants, as ``sub-01``, that the user asked for, sorted."""
        wanted = {"sub-" + label.removeprefix("sub-") for label in self.participant_label}
        return sorted(participants & wanted if wanted else participants)

    def for_participants(self) -> Settings:
        """Make the same settings of the participant level, those for groups at their defaults."""
        defaults: dict[str, Any] = {
            field.name: field.default
            for field in fields(self)
            if OF_ONE_LEVEL.get(field.name) == "group"
        }
        return replace(self, level="participant", **defaults)

    def of_result(self, model: Model) -> dict[str, Any]:
        """Name settings that change a label map of a model, as its sidecar does.

        What means nothing to the model is the same whatever was asked for.
        """
        unused = model.unused_options
        return {
            "Folds": "all" if "folds" in unused else list(self.folds) or "all",
            "Mirroring": "no_tta" not in unused and not self.no_tta,
            "Region": "region" not in unused and self.region,
        }

    def toml(self) -> str:
        """All settings as TOML, which ``--config-file`` takes again."""
        lines = []
        for field in fields(self):
            value = getattr(self, field.name)
            comment = "# " if field.name in POSITIONAL else ""
            if value is not None:
                lines.append(f"{comment}{field.name.replace('_', '-')} = {_toml(value)}")
        return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    # JSON's strings, numbers, booleans and lists are TOML as they stand.
    if isinstance(value, tuple):
        value = list(value)
    elif isinstance(value, Path):
        value = str(value.absolute())
    return json.dumps(value, ensure_ascii=False)
