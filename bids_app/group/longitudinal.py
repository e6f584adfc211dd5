"""Change from a participant's first session to each later one, and the noise in it.

Every image is segmented on its own; nothing is registered. Images are compared if they have the
same name except for the session, and the same version of the same model. `docs/measures.md`
compares this with a pipeline that registers the images of a participant.
"""

from __future__ import annotations

import logging
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from bids_app.bids.columns import LONGITUDINAL
from bids_app.bids.outputs import ENTITIES
from bids_app.bids.sidecars import years
from bids_app.group.table import ALIKE, in_doubt, shows_brainstem, split_flags
from bids_app.io.tables import make_frame
from bids_app.regions import REGIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    Model = tuple[str, str, str]  # name, version and suffix of the images
    Floats = NDArray[np.float64]

LOG = logging.getLogger(__name__)
LEAST_YEARS = 30 / 365.25  # between two images, for a change per year
LEAST_REPEATS = 10  # pairs, or participants, for an estimate of noise
SAME_VOXEL = 0.01  # relative difference of voxel edges that counts as none
SAME_HEAD = 0.03  # relative difference of eTIV that is plausible within one head
_TO_SIGMA = 1.4826  # median absolute deviation to standard deviation
_EFFICIENCY = 0.37  # of the MAD, relative to the standard deviation of as many normal values
_WEAKEST_FIRST = ("passes", "changes", "repeats")  # sources of noise
_SAME_SCANNER = ("site", "manufacturer", "scanner_model")
_MODEL = list(ALIKE)


def find_changes(volumes: pd.DataFrame, dates: Mapping[str, datetime]) -> pd.DataFrame:
    """Compare each participant's later images with the first one of the same name.

    Parameters
    ----------
    volumes : pandas.DataFrame
        Columns of `bids_app.bids.columns.GROUP`; rows without a brainstem do not count.
    dates : mapping of str to datetime
        Acquisition dates, by path of the source image.

    Returns
    -------
    pandas.DataFrame
        A row per later image; columns of `bids_app.bids.columns.LONGITUDINAL`.
    """
    done = volumes[volumes["brainstem_mm3"].notna() & shows_brainstem(volumes)]
    pairs = _pairs(done[done["session_id"].notna()], dates)
    if not pairs:
        return make_frame([], LONGITUDINAL)
    first, later = (
        done.loc[list(labels)].reset_index(drop=True) for labels in zip(*pairs, strict=True)
    )
    changes = _changes(first, later, dates)
    return _add_noise(changes, _noise_of_repeats(done))


def is_alike(changes: pd.DataFrame) -> pd.Series[bool]:
    """Select changes whose images were acquired and segmented alike; noise is estimated from them.

    An unknown date does not matter.
    """
    return changes["flags"].isna() | changes["flags"].eq("no_date")


def _pairs(done: pd.DataFrame, dates: Mapping[str, datetime]) -> list[tuple[Any, Any]]:
    """Pair the first image of each series with each later one, by their labels in the index."""
    keys = ["participant_id", *_MODEL, *ENTITIES]
    columns = [done[key].fillna("").tolist() for key in keys]
    series: dict[tuple[str, ...], list[tuple[Any, str, str]]] = {}
    images = zip(done.index, done["session_id"], done["source"], strict=True)
    for image, *key in zip(images, *columns, strict=True):
        series.setdefault(tuple(key), []).append(image)
    pairs, alone = [], 0
    for of_series in series.values():
        first, *later = _in_order(of_series, dates)
        pairs += [(first, other) for other in later]
        alone += not later
    if pairs and alone:
        LOG.info("Images with a session and no image of the same name in another: %d", alone)
    return pairs


def _in_order(
    images: Sequence[tuple[Any, str, str]], dates: Mapping[str, datetime]
) -> Iterator[Any]:
    """Sort (label, session, source) by date if all have one, else by session as people count."""
    dated = all(source in dates for _, _, source in images)

    def order(image: tuple[Any, str, str]) -> tuple[Any, ...]:
        _, session, source = image
        parts = tuple((int(d or 0), text) for d, text in re.findall(r"(\d*)(\D*)", session))
        return (dates[source], parts) if dated else (parts,)

    return (label for label, _, _ in sorted(images, key=order))


def _changes(
    first: pd.DataFrame, later: pd.DataFrame, dates: Mapping[str, datetime]
) -> pd.DataFrame:
    """Compute the changes between the rows of two tables, without the noise."""
    columns: dict[str, Any] = {
        name: later[name] for name in ("participant_id", "session_id", "source", *ENTITIES, *_MODEL)
    }
    columns |= {"first_session_id": first["session_id"], "first_source": first["source"]}
    spans = np.array(
        [
            years(dates[a], dates[b]) if a in dates and b in dates else math.nan
            for a, b in zip(first["source"], later["source"], strict=True)
        ]
    )
    columns["years"] = spans
    for region in REGIONS:
        start, end = (part[f"{region}_mm3"].to_numpy(np.float64) for part in (first, later))
        start = np.where(start == 0, np.nan, start)
        percent = 100 * (end - start) / start
        long_enough = np.where(spans >= LEAST_YEARS, spans, np.nan)
        spreads = [part[f"{region}_sd_mm3"].to_numpy(np.float64) for part in (first, later)]
        columns[f"{region}_change_mm3"] = end - start
        columns[f"{region}_change_percent"] = percent
        columns[f"{region}_change_percent_per_year"] = percent / long_enough
        columns[f"{region}_change_sd_percent"] = 100 * np.hypot(*spreads) / start
    columns["flags"] = _flags(first, later, undated=np.isnan(spans))
    return _as_written(pd.DataFrame(columns, index=first.index))


def _as_written(changes: pd.DataFrame) -> pd.DataFrame:
    """Round numbers to the digits that are written, and complete the columns."""
    made = make_frame([{}] * len(changes), LONGITUDINAL)
    for name, values in changes.items():
        column = LONGITUDINAL[str(name)]
        made[name] = column.round(values.to_numpy()) if column.dtype == "float" else values
    return made


def _flags(
    first: pd.DataFrame, later: pd.DataFrame, *, undated: NDArray[np.bool_]
) -> pd.Series[Any]:
    def differ(column: str) -> pd.Series[bool]:
        both_missing = first[column].isna() & later[column].isna()
        return first[column].ne(later[column]) & ~both_missing

    voxels = zip(first["voxel_size_mm"], later["voxel_size_mm"], strict=True)
    before, after = first["etiv_mm3"], later["etiv_mm3"]
    # An image with the skull stripped and one without may differ by that alone.
    stripped = [
        part["flags"].map(lambda cell: "no_etiv" in split_flags(cell)) for part in (first, later)
    ]
    raised: dict[str, Any] = {
        "scanner_changed": np.any([differ(column) for column in _SAME_SCANNER], axis=0),
        "field_strength_changed": differ("field_strength_t"),
        "voxel_size_changed": [not _same_voxel(a, b) for a, b in voxels],
        "etiv_changed": (after - before).abs() > SAME_HEAD * before,
        "flagged_image": in_doubt(first) | in_doubt(later) | stripped[0].ne(stripped[1]),
        "rated_fail": first["rating"].eq("fail") | later["rating"].eq("fail"),
        "no_date": undated,
    }
    return _listed(raised, first.index)


def _listed(raised: Mapping[str, Any], index: pd.Index[Any]) -> pd.Series[Any]:
    """List in each row the names whose values, shape (len(index),), are true; NaN if none."""
    rows = zip(
        *(np.asarray(values, dtype=bool).tolist() for values in raised.values()), strict=True
    )
    texts = [
        ",".join(name for name, there in zip(raised, row, strict=True) if there) or math.nan
        for row in rows
    ]
    return pd.Series(texts, index=index, dtype=object)


def _same_voxel(first: object, later: object) -> bool:
    """Compare sizes such as ``1x1x1``; edges that a header scales a little are equal."""
    if not isinstance(first, str) or not isinstance(later, str):
        return not isinstance(first, str) and not isinstance(later, str)
    edges = zip(first.split("x"), later.split("x"), strict=True)
    return all(abs(float(b) - float(a)) <= SAME_VOXEL * float(a) for a, b in edges)


# --- noise --------------------------------------------------------------------------------


def _noise_of_repeats(done: pd.DataFrame) -> dict[Model, dict[str, float]]:
    """Compute the smallest detectable change, in percent, from repeated scans within sessions.

    Repeats have the same name but for the run. Their within-session coefficient of variation is
    pooled over sessions (root mean square), for each model, version and suffix. Only images count
    that have no flag (but no_etiv) and are not rated fail.
    """
    usable = done[~in_doubt(done) & done["rating"].ne("fail")]
    keys = [*_MODEL, "participant_id", "session_id", *(key for key in ENTITIES if key != "run")]
    repeated = usable[usable[keys].fillna("").duplicated(keep=False)]
    if repeated.empty:
        return {}
    names = [f"{region}_mm3" for region in REGIONS]
    pooled: dict[Model, dict[str, list[tuple[float, int]]]] = {}
    groups = repeated[names].groupby([repeated[key].fillna("") for key in keys], sort=False)
    for (model, version, suffix, *_), images in groups:
        of_model = pooled.setdefault((str(model), str(version), str(suffix)), {})
        for region, name in zip(REGIONS, names, strict=True):
            values = images[name].to_numpy(np.float64)
            if np.isfinite(values).all() and values.all():
                square = float(values.var(ddof=1)) / float(values.mean()) ** 2
                of_model.setdefault(region, []).append((square, len(values) - 1))
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
    """Give the multiple of an estimated deviation that covers 95 % of changes due to noise."""
    return float(stdtrit(freedom, 0.975))


def _add_noise(changes: pd.DataFrame, repeats: Mapping[Model, Mapping[str, float]]) -> pd.DataFrame:
    """Fill in the smallest detectable change and the regions beyond it.

    The noise comes from repeated scans: the square root of 2 times the noise of a single volume
    (the smallest detectable change of repeated measures). Without repeats it comes from the
    scatter of the changes about their median, which includes differences between people. Without
    these it comes from the passes of the network, which know nothing of the scanner. That is too
    small, so no change counts as beyond it, and no smaller estimate from the other two is used. A
    deviation is multiplied by Student's t for 95 %, since it is estimated from few values, and
    that of the passes by 1.96.
    """
    shape = (len(changes), len(REGIONS))
    least, beyond = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    sources = np.full(shape, "", dtype=object)
    for (model, version, suffix), of_model in changes.groupby(_MODEL, sort=False):
        noise = repeats.get((str(model), str(version), str(suffix)), {})
        rows = changes.index.get_indexer(of_model.index)
        for k, region in enumerate(REGIONS):
            percent = of_model[f"{region}_change_percent"].to_numpy(np.float64)
            passes = of_model[f"{region}_change_sd_percent"].to_numpy(np.float64)
            wavering = _reach(math.inf) * passes
            estimates = {"repeats": noise.get(region), "changes": _scatter(of_model, region)}
            source = next((name for name, estimate in estimates.items() if estimate), "passes")
            smallest = np.fmax(estimates.get(source) or np.nan, wavering)
            smallest = np.where(np.isnan(percent), np.nan, smallest)
            least[rows, k] = smallest
            sources[rows, k] = np.where(np.isnan(smallest), "", source)
            beyond[rows, k] = (source != "passes") & (np.abs(percent) > smallest)
    filled: dict[str, Any] = {}
    for k, region in enumerate(REGIONS):
        column = f"{region}_smallest_detectable_percent"
        filled[column] = LONGITUDINAL[column].round(least[:, k])
    filled["noise_source"] = pd.Series(
        [next((s for s in _WEAKEST_FIRST if s in row), math.nan) for row in sources.tolist()],
        index=changes.index,
        dtype=object,
    )
    raised = {region: beyond[:, k] for k, region in enumerate(REGIONS)}
    filled["beyond_noise"] = _listed(raised, changes.index)
    return changes.assign(**filled)


def _scatter(changes: pd.DataFrame, region: str) -> float | None:
    """Compute the smallest detectable change from the changes between images that are alike.

    The deviation is the median absolute one about the median. Its t has 0.37 of the degrees of
    freedom of a standard deviation, its efficiency: with 10 to 100 normal values, 4.5 to 5.1 % of
    further ones then exceed it. Each participant counts once, with the first change.
    """
    column = f"{region}_change_percent"
    known = changes[is_alike(changes) & changes[column].notna()]
    values: Floats = known.drop_duplicates("participant_id")[column].to_numpy(np.float64)
    if len(values) < LEAST_REPEATS:
        return None
    deviation = float(_TO_SIGMA * np.median(np.abs(values - np.median(values))))
    return _reach(_EFFICIENCY * (len(values) - 1)) * deviation or None
