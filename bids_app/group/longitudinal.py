"""Change from a participant's first session to each later one, with what is noise in it.

Every image is segmented by itself; nothing is registered. Images are compared that have the same
name but for the session, by the same version of the same model. `docs/measures.md` tells how this
compares with a pipeline that registers the images of a participant.
"""

from __future__ import annotations

import logging
import math
import re
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from bids_app.bids.columns import LONGITUDINAL
from bids_app.bids.outputs import ENTITIES
from bids_app.bids.sidecars import years
from bids_app.group.table import flags_of, in_doubt
from bids_app.io.files import remove, write_atomic
from bids_app.io.tables import NOT_AVAILABLE, data_dictionary, dump_json, number, table
from bids_app.regions import REGIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    Row = dict[str, str]

LOG = logging.getLogger(__name__)
LEAST_YEARS = 30 / 365.25  # between two images, for a change a year
LEAST_REPEATS = 10  # pairs, for a noise to be taken of them
SAME_VOXEL = 0.01  # relative difference of an edge up to which voxels are alike
SAME_HEAD = 0.03  # relative difference of eTIV up to which it is the same head at the same scale
ALIKE = (NOT_AVAILABLE, "no_date")  # flags of changes that noise is taken of
_TO_SIGMA = 1.4826  # median absolute deviation to standard deviation
_EFFICIENCY = 0.37  # of the MAD: a deviation by it is as sure as one of 37 % of the values
_WEAKEST_FIRST = ("passes", "changes", "repeats")  # what noise is taken of
_SAME_SCANNER = ("site", "manufacturer", "scanner_model")


def write_longitudinal(place: Path, rows: Sequence[Row], dates: Mapping[str, datetime]) -> int:
    """Write the table of changes and its data dictionary; remove them where there is no change.

    Parameters
    ----------
    place : Path
        Of the table.
    rows : sequence of dict
        Of the group table, with the keys of `bids_app.bids.columns.GROUP`.
    dates : mapping of str to datetime
        When images were taken, by their path in the dataset.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    changes = find_changes(rows, dates)
    if changes:
        content = [[change[column] for column in LONGITUDINAL] for change in changes]
        write_atomic(place, table(list(LONGITUDINAL), content))
        write_atomic(place.with_suffix(".json"), dump_json(data_dictionary(LONGITUDINAL)))
    else:
        remove([place, place.with_suffix(".json")])
    return len(changes)


def find_changes(rows: Sequence[Row], dates: Mapping[str, datetime]) -> list[Row]:
    """Compare each participant's later images with the first of the same name.

    Parameters
    ----------
    rows, dates
        As for `write_longitudinal`.

    Returns
    -------
    list of dict
        Keys are those of `bids_app.bids.columns.LONGITUDINAL`.
    """
    done = [row for row in rows if row["brainstem_mm3"] != NOT_AVAILABLE]
    repeats = _noise_of_repeats(done)
    series: dict[tuple[str, ...], list[Row]] = {}
    for row in done:
        if row["session_id"] != NOT_AVAILABLE:
            keys = ("participant_id", "model", "model_version", *ENTITIES)
            series.setdefault(tuple(row[key] for key in keys), []).append(row)
    changes, alone = [], 0
    for images in series.values():
        first, *later = sorted(images, key=lambda row: _order(row, images, dates))
        changes += [_change(first, row, dates) for row in later]
        alone += not later
    if changes and alone:
        LOG.info("Images with a session and no image of the same name in another: %d", alone)
    _add_noise(changes, repeats)
    return changes


def _order(row: Row, images: Sequence[Row], dates: Mapping[str, datetime]) -> tuple[object, ...]:
    """Sort by date where all images have one, else by session as people count."""
    session = tuple((int(d or 0), text) for d, text in re.findall(r"(\d*)(\D*)", row["session_id"]))
    if all(image["source"] in dates for image in images):
        return dates[row["source"]], session
    return (session,)


def _change(first: Row, later: Row, dates: Mapping[str, datetime]) -> Row:
    change = dict.fromkeys(LONGITUDINAL, NOT_AVAILABLE)
    change |= {key: later[key] for key in ("participant_id", *ENTITIES, "model", "model_version")}
    change |= {"session_id": later["session_id"], "first_session_id": first["session_id"]}
    change |= {"source": later["source"], "first_source": first["source"]}
    span = math.nan
    if first["source"] in dates and later["source"] in dates:
        span = years(dates[first["source"]], dates[later["source"]])
        change["years"] = number(span)
    for region in REGIONS:
        start, end = (float(row[f"{region}_mm3"]) for row in (first, later))
        if not start:
            continue
        percent = 100 * (end - start) / start
        change[f"{region}_change_mm3"] = number(end - start)
        change[f"{region}_change_percent"] = number(percent)
        if span >= LEAST_YEARS:
            change[f"{region}_change_percent_per_year"] = number(percent / span)
        spreads = [row[f"{region}_sd_mm3"] for row in (first, later)]
        if NOT_AVAILABLE not in spreads:
            change[f"{region}_change_sd_percent"] = number(
                100 * math.hypot(*map(float, spreads)) / start
            )
    change["flags"] = ",".join(_flags(first, later, change)) or NOT_AVAILABLE
    return change


def _flags(first: Row, later: Row, change: Row) -> Iterator[str]:
    if any(first[column] != later[column] for column in _SAME_SCANNER):
        yield "scanner_changed"
    if first["field_strength_t"] != later["field_strength_t"]:
        yield "field_strength_changed"
    if not _same_voxel(first["voxel_size_mm"], later["voxel_size_mm"]):
        yield "voxel_size_changed"
    if NOT_AVAILABLE not in (etiv := [row["etiv_mm3"] for row in (first, later)]):
        before, after = map(float, etiv)
        if abs(after - before) > SAME_HEAD * before:
            yield "etiv_changed"
    # A head that was stripped and one that was not may differ by that alone.
    stripped = ["no_etiv" in flags_of(row) for row in (first, later)]
    if any(map(in_doubt, (first, later))) or stripped[0] != stripped[1]:
        yield "flagged_image"
    if any(row["rating"] == "fail" for row in (first, later)):
        yield "rated_fail"
    if change["years"] == NOT_AVAILABLE:
        yield "no_date"


def _same_voxel(first: str, later: str) -> bool:
    """Compare sizes as ``1x1x1``; edges that a scale in a header changes a little are alike."""
    if NOT_AVAILABLE in (first, later):
        return first == later
    edges = zip(first.split("x"), later.split("x"), strict=True)
    return all(abs(float(b) - float(a)) <= SAME_VOXEL * float(a) for a, b in edges)


# --- noise --------------------------------------------------------------------------------


def _noise_of_repeats(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, float]]:
    """Tell the smallest change, in per cent, that repeated scans of a session let stand out.

    Repeats have the same name but for the run; their within-session coefficient of
    variation is pooled over sessions (root mean square), a model and version each. Only images
    without a flag (but for no_etiv), and not rated fail, count.
    """
    sessions: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if not in_doubt(row) and row["rating"] != "fail":
            keys = ["model", "model_version", "participant_id", "session_id"]
            keys += [key for key in ENTITIES if key != "run"]
            sessions.setdefault(tuple(row[key] for key in keys), []).append(row)
    pooled: dict[tuple[str, str], dict[str, list[tuple[float, int]]]] = {}
    for key, images in sessions.items():
        for region in REGIONS if len(images) > 1 else ():
            values = np.array([float(image[f"{region}_mm3"]) for image in images])
            if values.all():
                square = float(values.var(ddof=1)) / float(values.mean()) ** 2
                of_model = pooled.setdefault((key[0], key[1]), {})
                of_model.setdefault(region, []).append((square, len(images) - 1))
    return {
        model: {region: noise for region, parts in of.items() if (noise := _pool(parts))}
        for model, of in pooled.items()
    }


def _pool(parts: Sequence[tuple[float, int]]) -> float | None:
    freedom = sum(n for _, n in parts)
    if freedom < LEAST_REPEATS:
        return None
    noise = 100 * math.sqrt(sum(square * n for square, n in parts) / freedom)
    return _reach(freedom) * math.sqrt(2) * noise


def _reach(freedom: float) -> float:
    """Deviations about 0 that hold 95 % of changes, where the deviation is an estimate."""
    return float(stdtrit(freedom, 0.975))


def _add_noise(
    changes: Sequence[Row], repeats: Mapping[tuple[str, str], Mapping[str, float]]
) -> None:
    """Tell the smallest change that stands out of the noise, and which changes do, in place.

    From repeated scans: the square root of 2 times the noise of a single volume (the smallest
    detectable change of repeated measures); or else from the scatter of the changes about their
    median, which holds also how people differ in their change; or else from the passes of the
    network, which hold nothing of the scanner. That last is too small, so no change stands out of
    it, and none that is smaller stands out of the others. A deviation is multiplied by Student's t
    for 95 %, as few values tell it badly; 1.96 for the passes, whose values are not counted.
    """
    models: dict[tuple[str, str], list[Row]] = {}
    for change in changes:
        models.setdefault((change["model"], change["model_version"]), []).append(change)
    for model, of_model in models.items():
        scatters = {r: _scatter(of_model, f"{r}_change_percent") for r in REGIONS}
        reach = _reach(math.inf)
        for change in of_model:
            sources, beyond = set(), []
            for region in REGIONS:
                percent = change[f"{region}_change_percent"]
                passes = change[f"{region}_change_sd_percent"]
                if percent == NOT_AVAILABLE:
                    continue
                wavering = 0 if passes == NOT_AVAILABLE else reach * float(passes)
                if noise := repeats.get(model, {}).get(region):
                    least, source = max(noise, wavering), "repeats"
                elif scatter := scatters[region]:
                    least, source = max(scatter, wavering), "changes"
                elif passes != NOT_AVAILABLE:
                    least, source = wavering, "passes"
                else:
                    continue
                change[f"{region}_smallest_detectable_percent"] = number(least)
                sources.add(source)
                if source != "passes" and abs(float(percent)) > least:
                    beyond.append(region)
            change["noise_source"] = next(
                (s for s in _WEAKEST_FIRST if s in sources), NOT_AVAILABLE
            )
            change["beyond_noise"] = ",".join(beyond) or NOT_AVAILABLE


def _scatter(changes: Sequence[Row], column: str) -> float | None:
    """Tell the smallest change that the changes between images taken and found alike let stand out.

    Their deviation is the median absolute one about their median. Its t has 0.37 of the degrees of
    freedom of a standard deviation, its efficiency: with 10 to 100 normal values, 4.5 to 5.1 % of
    further ones then lie beyond. A participant counts once, with the first change.
    """
    people: dict[str, float] = {}
    for change in changes:
        if change["flags"] in ALIKE and change[column] != NOT_AVAILABLE:
            people.setdefault(change["participant_id"], float(change[column]))
    if len(people) < LEAST_REPEATS:
        return None
    values = np.array(list(people.values()))
    deviation = float(_TO_SIGMA * np.median(np.abs(values - np.median(values))))
    return _reach(_EFFICIENCY * (len(values) - 1)) * deviation or None
