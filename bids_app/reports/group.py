"""The page of a dataset: what to look at first, how volumes compare, and every result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bids_app.bids.columns import LONGITUDINAL
from bids_app.bids.outputs import ENTITIES, RATINGS
from bids_app.group.longitudinal import LEAST_REPEATS, is_alike
from bids_app.group.table import FAILED, shows_brainstem, split_flags
from bids_app.io.tables import NOT_AVAILABLE
from bids_app.measures.flags import CHECKS
from bids_app.regions import REGIONS, WHOLE_NAME
from bids_app.reports.citations import group_references
from bids_app.reports.methods_text import group_sentences
from bids_app.reports.page import (
    counted,
    region_color,
    render,
    result_address,
    upper_first,
)
from bids_app.reports.plots import distribution
from bids_app.reports.results_table import STATIC, results_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from bids_app.group.table import GroupTables
    from bids_app.reports.plots import Plot

MOST_GROUPS = 12  # bands in one drawing
MOST_FAILED = 20  # images listed at the top
_NUMBERED = tuple(enumerate(REGIONS, 1))
_LINKED = ("participant_id", "source", "model", "model_version")
_COMPARABLE = ("repeats", "changes")  # sources of noise that changes can be compared with


def group_page(tables: GroupTables, sentences: Mapping[str, str] | None = None) -> bytes:
    """Make the page of a dataset from the tables of the group level.

    Parameters
    ----------
    tables : GroupTables
        With at least one row of volumes.
    sentences : mapping of str to str, optional
        Of `bids_app.reports.methods_text.group_sentences`, if the caller has them already.

    Returns
    -------
    bytes
        HTML. The same tables give the same bytes.
    """
    sentences = group_sentences(tables) if sentences is None else sentences
    failed = tables.volumes["flags"].eq(FAILED)
    complete = tables.volumes[~failed]
    draw = _Drawing(tables)
    return render(
        "group.html.j2",
        script="group.js",
        title="All participants: brainstem",
        tables=tables,
        complete=len(complete),
        flagged=int(complete["flags"].notna().sum()),
        failed=int(failed.sum()),
        failures=_failures(tables.volumes[failed]),
        flags=_flag_counts(complete),
        volumes=_volumes(complete, draw),
        changes=_changes(tables, draw),
        models=_models(tables.agreement, draw),
        results=results_table(tables),
        meanings={check.name: check.explain(tables.thresholds) for check in CHECKS},
        change_meanings=LONGITUDINAL["flags"].levels,
        limit=f"{draw.limit:g}",
        ratings=RATINGS,
        static=STATIC,
        regions=REGIONS,
        texts=[" ".join(sentences.values())],
        cited=group_references(sentences),
    )


def _failures(rows: pd.DataFrame) -> list[str]:
    """List the first images that could not be processed, with the reasons."""
    shown = rows.head(MOST_FAILED)[["source", "model", "failure"]].fillna(NOT_AVAILABLE)
    lines = [f"{source}, model {model}: {why}" for source, model, why in shown.to_numpy()]
    more = len(rows) - len(shown)
    return [*lines, *([f"and {more:,} more, in the table below"] if more else [])]


def _flag_counts(complete: pd.DataFrame) -> dict[str, int]:
    """Count results by flag, the most frequent first."""
    counts = complete["flags"].dropna().str.split(",").explode().value_counts(sort=False)
    return dict(sorted(((str(f), int(n)) for f, n in counts.items()), key=lambda item: -item[1]))


# --- drawings -----------------------------------------------------------------------------


class _Drawing:
    """Draws the values of a column in groups, with links to the pages of participants."""

    def __init__(self, tables: GroupTables) -> None:
        check = next(check for check in CHECKS if check.name == "outlier")
        self.limit = check.in_use(tables.thresholds)
        self.reported = tables.reported

    def __call__(
        self, title: str, color: str, rows: pd.DataFrame, column: str, groups: pd.Series[str]
    ) -> Plot | None:
        """Draw the values of a column; None if there are none."""
        values = rows.loc[rows[column].notna() & groups.notna(), column]
        if values.empty:
            return None
        named = ["participant_id", "session_id", *ENTITIES]
        where = rows[[*named, *_LINKED[1:]]]
        grouped = dict(list(values.groupby(groups[values.index], sort=False)))

        def describe(labels: pd.Index) -> list[tuple[str, str]]:
            found = where.loc[labels].fillna(NOT_AVAILABLE)
            return [
                (" ".join(row[c] for c in named if row[c] != NOT_AVAILABLE), self.address(row))
                for row in found.to_dict("records")
            ]

        return distribution(title, color, grouped, self.limit, describe)

    def regions(
        self, title: str, rows: pd.DataFrame, column: str, groups: pd.Series[str]
    ) -> list[Plot]:
        """Draw a column of each region; ``{}`` in title and column stands for the region."""
        named = [(upper_first(name), region_color(name, i), name) for i, name in _NUMBERED]
        plots = (self(title.format(n), c, rows, column.format(key), groups) for n, c, key in named)
        return [plot for plot in plots if plot]

    def address(self, row: Mapping[Any, Any]) -> str:
        """Give the address of a row's result in a participant's page, or ``""``."""
        name, source, model, version = (row[key] for key in _LINKED)
        return result_address(name, source, model, version) if name in self.reported else ""


def _model(rows: pd.DataFrame, column: str = "model") -> pd.Series[str]:
    return (rows[column] + " " + rows[f"{column}_version"].fillna("")).str.strip()


def _volumes(complete: pd.DataFrame, draw: _Drawing) -> dict[str, Any]:
    shown = complete[shows_brainstem(complete)]
    groups = _model(shown)
    if shown["session_id"].notna().any():
        by_session = groups + " " + shown["session_id"].fillna("no session")
        if by_session.nunique() <= MOST_GROUPS:
            groups = by_session
    several = 1 < shown["batch"].nunique() <= MOST_GROUPS
    ml = shown.assign(**{f"{name}_mm3": shown[f"{name}_mm3"] / 1000 for name in REGIONS})
    lines = []
    for i, name in _NUMBERED:
        values = shown[f"{name}_mm3"].dropna()
        for group, of_group in values.groupby(groups[values.index], sort=False):
            numbers = [of_group.median(), of_group.min(), of_group.max()]
            lines.append((name, region_color(name, i), group, len(of_group), numbers))
    return {
        "plots": draw.regions("{} (ml)", ml, "{}_mm3", groups),
        "by_batch": draw.regions("{} (ml)", ml, "{}_mm3", shown["batch"]) if several else [],
        "lines": lines,
    }


# --- sessions, and models -----------------------------------------------------------------


def _changes(tables: GroupTables, draw: _Drawing) -> dict[str, Any] | None:
    """Show the changes from the first session to later ones, if there are any."""
    rows = tables.changes
    if rows.empty:
        return None
    models = _model(rows)
    sessions = rows["first_session_id"] + " to " + rows["session_id"]
    groups = models + " " + sessions if models.nunique() > 1 else sessions
    groups = groups if groups.nunique() <= MOST_GROUPS else models
    first = rows.sort_values("beyond_noise", key=lambda column: column.isna(), kind="stable")
    levels = LONGITUDINAL["noise_source"].levels
    noises = rows["noise_source"].dropna().unique()
    flags = rows["flags"].dropna().str.split(",").explode().unique()
    return {
        "counts": f"{counted(len(rows), 'change')} from a first session, "
        f"{rows['flags'].notna().sum():,} with a flag, such as another scanner. "
        f"{_beyond_noise(rows)}",
        "plots": draw.regions("{} (change in %)", rows, "{}_change_percent", groups),
        "lines": [_change(row, draw) for row in first.head(STATIC).to_dict("records")],
        "noises": [levels[noise] for noise in noises if noise in levels],
        "flags": [flag for flag in flags if flag in LONGITUDINAL["flags"].levels],
        "table": f"{tables.stem}_longitudinal.tsv",
    }


def _change(row: dict[Any, Any], draw: _Drawing) -> dict[str, Any]:
    row = {key: None if value != value else value for key, value in row.items()}
    entities = " ".join(f"{key}-{row[key]}" for key in ENTITIES if row[key])
    sessions = f"{row['first_session_id']} to {row['session_id']}"
    unknown = "none" if row["noise_source"] in _COMPARABLE else "unknown"
    return {
        "participant": row["participant_id"],
        "address": draw.address({**row, "model_version": row["model_version"] or NOT_AVAILABLE}),
        "name": f"{sessions} {entities}".strip() + f", model {row['model']}",
        "years": LONGITUDINAL["years"].text(row["years"]),
        "percent": [_percent(row, name) for name in REGIONS],
        "beyond": (row["beyond_noise"] or unknown).replace(",", ", "),
        "flags": split_flags(row["flags"]),
    }


def _percent(row: Mapping[str, Any], name: str) -> str:
    change, smallest = (
        row[f"{name}_{end}"] for end in ("change_percent", "smallest_detectable_percent")
    )
    if change is None:
        return NOT_AVAILABLE
    return f"{change:+.1f} ({NOT_AVAILABLE if smallest is None else f'{smallest:.1f}'})"


def _beyond_noise(rows: pd.DataFrame) -> str:
    """Say how many changes exceed the noise, or why that is unknown."""
    comparable = rows[rows["noise_source"].isin(_COMPARABLE)]
    if comparable.empty:
        alike = rows[is_alike(rows)]
        return (
            "Noise could not be estimated: too few unflagged changes "
            f"({alike['participant_id'].nunique():,} participants; at least {LEAST_REPEATS} per "
            "model are needed) and too few repeated scans."
        )
    return (
        f"{comparable['beyond_noise'].notna().sum():,} of {len(comparable):,} exceed the noise in "
        "at least one region. About one in twenty would by chance, in each region. A change common "
        "to all participants, such as aging or a software update of the scanner, makes many more "
        "exceed it."
    )


def _models(rows: pd.DataFrame, draw: _Drawing) -> dict[str, Any] | None:
    """Show how models agree, if there are several."""
    rows = rows[rows["difference_percent"].notna()]
    if rows.empty:
        return None
    plots, lines = [], []
    for pair, of_pair in rows.groupby(
        _model(rows) + " - " + _model(rows, "other_model"), sort=False
    ):
        title = f"{pair} (% of the mean volume)"
        color = region_color(WHOLE_NAME, None)
        plots.append(draw(title, color, of_pair, "difference_percent", of_pair["name"]))
        lines += [
            (pair, name, _agreement(of_region))
            for name, of_region in of_pair.groupby("name", sort=False)
        ]
    return {"plots": plots, "lines": lines}


def _agreement(rows: pd.DataFrame) -> list[str]:
    """Give median and lowest Dice, and the limits of agreement of Bland and Altman (1986)."""
    dice, differences = rows["dice"].dropna(), rows["difference_percent"]
    middle, limits = differences.mean(), NOT_AVAILABLE
    if len(rows) > 1:
        reach = 1.96 * differences.std()
        limits = f"{middle - reach:.1f} to {middle + reach:.1f}"
    overlap = [NOT_AVAILABLE] * 2 if dice.empty else [f"{dice.median():.3f}", f"{dice.min():.3f}"]
    return [f"{len(rows):,}", *overlap, f"{middle:.1f}", limits]
