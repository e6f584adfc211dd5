"""What a participant's page takes from the rest of the dataset: peers, failures, the group level.

The group level tells flags anew by its own thresholds, marks volumes that lie out, and compares
sessions. A page shows what it said of those results that are still the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bids_app.bids.columns import LONGITUDINAL
from bids_app.bids.outputs import GroupFiles
from bids_app.group.table import flags_of
from bids_app.group.zscores import scores_of
from bids_app.io.tables import NOT_AVAILABLE, read_json, read_table
from bids_app.measures.flags import FLAGS, reapply_thresholds
from bids_app.regions import REGIONS
from bids_app.reports.from_files import read_failures, sidecar, volumes
from bids_app.reports.methods_text import group_sentences
from bids_app.reports.peers import Peers, read_peers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from bids_app.bids.results import Result

    Row = dict[str, str]

Key = tuple[str, str, str]  # model, version, source
_ROW = {"model", "model_version", "source", "flags", *(f"{region}_mm3" for region in REGIONS)}


@dataclass(frozen=True)
class Verdict:
    """What is to be looked at in a result.

    Attributes
    ----------
    flags : tuple of str
        Those of the group level where it saw this result, else those of the run that made it.
    thresholds : dict of str to float
        By which they were told, where they are not those of `bids_app.measures.flags.CHECKS`.
    scores : dict of str to float
        Robust z by column of `bids_app.bids.columns.OUTLIERS`; empty without a group level.
    """

    flags: tuple[str, ...]
    thresholds: Mapping[str, float]
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Around:
    """The rest of a dataset, as it was when a run began to write pages.

    Attributes
    ----------
    peers : Peers
        Volumes to compare with.
    failures : dict of tuple to dict
        Of `bids_app.reports.from_files.read_failures`.
    rows : dict of tuple to dict
        Of the group table, by model, version and source.
    changes : tuple of dict
        Of the table of changes between sessions.
    thresholds : dict of str to float
        Of the group level's flags.
    given : dict of str to float
        Thresholds that the user asks for now; they win.
    """

    peers: Peers = field(default_factory=Peers)
    failures: Mapping[tuple[str, str], Row] = field(default_factory=dict)
    rows: Mapping[Key, Row] = field(default_factory=dict)
    changes: Sequence[Row] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    given: Mapping[str, float] = field(default_factory=dict)

    def verdict(self, result: Result) -> Verdict:
        """Tell the flags of a result."""
        told = sidecar(result).get("Flags")
        flags = tuple(map(str, told)) if isinstance(told, list) else ()
        thresholds = _numbers(sidecar(result).get("FlagThresholds"))
        scores: dict[str, float] = {}
        if row := self._row(result):
            flags = tuple(flags_of(row))
            thresholds = dict(self.thresholds)
            scores = scores_of(row)
        if self.given:
            thresholds |= self.given
            measured = _numbers(sidecar(result).get("Quality"))
            measured |= {column: abs(z) for column, z in scores.items()}
            unknown = (flag for flag in flags if flag not in FLAGS)
            flags = (*reapply_thresholds(flags, measured, thresholds), *unknown)
        return Verdict(flags, thresholds, scores)

    def changes_between(self, results: Iterable[Result]) -> list[Row]:
        """Give the changes between some results that were not made anew since."""
        same = {_key(result) for result in results if self._row(result)}
        return [
            change
            for change in self.changes
            if all(
                (change["model"], change["model_version"], change[source]) in same
                for source in ("first_source", "source")
            )
        ]

    def sentences(self, results: Sequence[Result]) -> dict[str, str]:
        """Describe what the group level did that the page of some results shows."""
        told = group_sentences(
            [row for result in results if (row := self._row(result))],
            self.changes_between(results),
            {**self.thresholds, **self.given},
        )
        return {topic: told[topic] for topic in ("outlier", "change") if topic in told}

    def _row(self, result: Result) -> Row | None:
        """Give the group table's row of a result, unless the result was made anew since."""
        row = self.rows.get(_key(result))
        if row is None or row["flags"] == "failed":
            return None
        try:
            known = {line["name"]: line["volume_mm3"] for line in volumes(result)}
        except (OSError, ValueError, KeyError):
            return None
        same = all(row[f"{r}_mm3"] == known.get(r, NOT_AVAILABLE) for r in REGIONS)
        return row if same else None


def read_around(
    output_dir: Path, participants: Iterable[str] = (), given: Mapping[str, float] | None = None
) -> Around:
    """Read what the pages of participants take from the rest of the dataset.

    Parameters
    ----------
    output_dir : Path
        The derivative dataset.
    participants : iterable of str
        Those whose own tables are read, as for `read_peers`.
    given : mapping of str to float, optional
        Thresholds of flags that the user asks for.
    """
    files = GroupFiles(output_dir)
    rows = _read(files.volumes, _ROW)
    flags = read_json(files.volumes.with_suffix(".json")).get("flags")
    return Around(
        peers=read_peers(output_dir, rows, participants),
        failures=read_failures(output_dir),
        rows={(row["model"], row["model_version"], row["source"]): row for row in rows},
        changes=tuple(_read(files.longitudinal, LONGITUDINAL)),
        thresholds=_numbers(flags.get("Thresholds") if isinstance(flags, dict) else None),
        given=dict(given or {}),
    )


def _read(path: Path, needed: Iterable[str]) -> list[Row]:
    """Read a table of the group level; nothing where there is none that is whole."""
    try:
        rows = read_table(path)
    except (OSError, ValueError):
        return []
    return rows if rows and rows[0].keys() >= set(needed) else []


def _key(result: Result) -> Key:
    return (*result.model, result.source)


def _numbers(value: Any) -> dict[str, float]:
    items = value.items() if isinstance(value, dict) else ()
    return {name: float(number) for name, number in items if isinstance(number, int | float)}
