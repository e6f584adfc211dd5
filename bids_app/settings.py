"""The settings of one run: their names, types and defaults.

`Settings` is the one definition: the options of the command line are checked against its fields by
a test, and a configuration file sets them directly (`read_config`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Mapping

POSITIONAL = ("bids_dir", "output_dir", "level")
LEVELS = ("participant", "group")


# Metadata of settings that have an effect at one level only. Settings of the run itself, and those
# that every BIDS App takes at every level, have none: the same options may be given at both levels.
_PARTICIPANT = {"level": "participant"}
_GROUP = {"level": "group"}


@dataclass(frozen=True)
class Settings:
    """All settings of the command line and the configuration file.

    The fields are the options of ``bids_app`` by name; ``bids_app --help`` explains each.
    """

    bids_dir: Path
    output_dir: Path
    level: str
    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    suffix: tuple[str, ...] = ()
    desc: tuple[str, ...] = field(default=(), metadata=_PARTICIPANT)
    freesurfer_dir: Path | None = field(default=None, metadata=_PARTICIPANT)
    bids_filter_file: Path | None = field(default=None, metadata=_PARTICIPANT)
    skip_bids_validation: bool = False
    bids_database_dir: Path | None = field(default=None, metadata=_PARTICIPANT)
    work_dir: Path | None = None
    nprocs: int = field(default=1, metadata={"least": 1})
    omp_nthreads: int = field(default=1, metadata={"least": 1})
    device: str = field(default="auto", metadata=_PARTICIPANT)
    model: tuple[str, ...] = ()
    models_dir: Path | None = None
    float32: bool = field(default=False, metadata=_PARTICIPANT)
    folds: tuple[str, ...] = field(default=(), metadata=_PARTICIPANT)
    no_tta: bool = field(default=False, metadata=_PARTICIPANT)
    region: bool = field(default=False, metadata=_PARTICIPANT)
    write_probabilities: bool = field(default=False, metadata=_PARTICIPANT)
    include_ce: bool = field(default=False, metadata=_PARTICIPANT)
    assume_ras: bool = field(default=False, metadata=_PARTICIPANT)
    force: bool = field(default=False, metadata=_PARTICIPANT)
    dry_run: bool = False
    stop_on_first_crash: bool = field(default=False, metadata=_PARTICIPANT)
    reports_only: bool = field(default=False, metadata=_PARTICIPANT)
    covariates: tuple[str, ...] = field(default=(), metadata=_GROUP)
    norms: Path | None = field(default=None, metadata=_GROUP)
    flag_threshold: tuple[str, ...] = ()
    freesurfer_stats: bool = field(default=False, metadata=_PARTICIPANT)
    verbose: int = 0

    def requested(self, participants: set[str]) -> list[str]:
        """Select the participants, as ``sub-01``, that the user asked for; sorted."""
        wanted = {"sub-" + label.removeprefix("sub-") for label in self.participant_label}
        return sorted(participants & wanted if wanted else participants)

    def for_participants(self) -> Settings:
        """Copy the settings for the participant level; group settings return to their defaults."""
        defaults: dict[str, Any] = {
            f.name: f.default for f in fields(self) if f.metadata.get("level") == "group"
        }
        return replace(self, level="participant", **defaults)

    def toml(self) -> str:
        """Write all settings as TOML, which ``--config-file`` reads."""
        lines = []
        for f in fields(self):
            value = getattr(self, f.name)
            comment = "# " if f.name in POSITIONAL else ""
            if value is not None:
                lines.append(f"{comment}{f.name.replace('_', '-')} = {_toml(value)}")
        return "\n".join(lines) + "\n"


ONE_LEVEL = {f.name: f.metadata["level"] for f in fields(Settings) if "level" in f.metadata}


def read_config(content: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the content of a configuration file to values of fields.

    Parameters
    ----------
    content : mapping of str to object
        Values by option, such as ``participant-label`` or ``participant_label``, as TOML has them.
        A single value stands for a list of one.

    Returns
    -------
    dict of str to object
        By field of `Settings`, each of the field's type.

    Raises
    ------
    ValueError
        There is no such option, or its value is of another type; the message says which.
    """
    known = {f.name: f for f in fields(Settings) if f.name not in POSITIONAL}
    types = get_type_hints(Settings)
    values = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        option = "--" + key.replace("_", "-")
        if name not in known:
            raise ValueError(f"there is no option {option}")
        try:
            values[name] = _convert(value, types[name], known[name].metadata.get("least", 0))
        except ValueError as error:
            raise ValueError(f"{option} takes {error}") from None
    return values


def _convert(value: Any, kind: Any, least: int) -> Any:
    """Convert a value of TOML to a field's type; the error names what the field takes."""
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value
    if kind is int:
        if not isinstance(value, int) or value < least:
            raise ValueError(f"a whole number, {least} or more")
        return int(value)
    values = value if isinstance(value, list) else [value]
    if any(isinstance(item, bool | dict | list) for item in values):
        raise ValueError("text or a number")
    if kind == tuple[str, ...]:
        return tuple(map(str, values))
    if len(values) != 1:
        raise ValueError("one value")
    return str(values[0]) if kind is str else Path(str(values[0]))


def _toml(value: Any) -> str:
    # JSON's strings, numbers, booleans and lists are valid TOML.
    if isinstance(value, tuple):
        return json.dumps([_text(item) for item in value], ensure_ascii=False)
    if isinstance(value, Path):
        value = value.absolute()
    return json.dumps(_text(value), ensure_ascii=False)


def _text(value: Any) -> Any:
    """Escape bytes of a path that are no UTF-8, which TOML cannot hold."""
    if not isinstance(value, str | Path):
        return value
    return str(value).encode(errors="backslashreplace").decode()
