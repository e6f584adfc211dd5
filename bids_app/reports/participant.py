"""The page of one participant: every image and model, to be judged by eye and traced back."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bids_app.bids.outputs import GROUP_REPORT, report_name
from bids_app.bids.results import read_results
from bids_app.group.zscores import find_outliers
from bids_app.io.files import write_atomic
from bids_app.io.tables import NOT_AVAILABLE, read_table
from bids_app.measures.flags import CHECKS
from bids_app.regions import region
from bids_app.reports.agreement import agreement_section
from bids_app.reports.around import Around
from bids_app.reports.changes import changes_section
from bids_app.reports.citations import Used
from bids_app.reports.from_files import sidecar, volumes
from bids_app.reports.group import WHOLE_COLOR
from bids_app.reports.markup import element, foreign, join
from bids_app.reports.methods import methods
from bids_app.reports.page import (
    anchor,
    badges,
    heads,
    millilitres,
    notice,
    page,
    scrolling,
    table,
    title_block,
    volume_head,
)
from bids_app.reports.peers import outlying, strips
from bids_app.reports.tables import (
    checks_table,
    measures_table,
    quality_table,
    text_of,
    volumes_table,
)
from bids_app.reports.viewer import SCRIPT, cutout_data, library, library_data, opener

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bids_app.bids.results import Result
    from bids_app.reports.around import Verdict
    from bids_app.reports.markup import Markup
    from bids_app.reports.peers import Peers

    Row = dict[str, str]


def write_report(output_dir: Path, participant: str, around: Around | None = None) -> Path:
    """Write a participant's page from the output dataset alone.

    Parameters
    ----------
    output_dir : Path
        The derivative dataset.
    participant : str
        As ``sub-01``.
    around : Around, optional
        What is known of the rest of the dataset, and of this participant at the group level.

    Returns
    -------
    Path
        The page: one file with its pictures inside, the same bytes for the same results.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    around = around or Around()
    results = list(read_results(output_dir, participant))
    verdicts = [around.verdict(result) for result in results]
    complete = {(result.label, result.source) for result in results}
    failed = [
        f"{row['source']}, model {row['model']}: {row['failure']}"
        for key, row in sorted(around.failures.items())
        if row["participant_id"] == participant and key not in complete
    ]
    flagged = sum(bool(verdict.flags) for verdict in verdicts)
    home = GROUP_REPORT if (output_dir / GROUP_REPORT).is_file() else None
    main = [
        title_block(participant, output_dir, len(results), flagged, len(failed), home),
        notice("Could not be processed", failed, level="h2"),
    ]
    if len(results) > 1:
        main.append(_overview(results, verdicts))
    main.append(changes_section(around.changes_between(results)))
    main.append(agreement_section({_image(r): _comparison(r) for r in results}))
    cutouts = {_anchor(result): cutout for result in results if (cutout := _cutout(result))}
    main += [
        _section(r, verdict, around.peers, viewer=_anchor(r) in cutouts)
        for r, verdict in zip(results, verdicts, strict=True)
    ]
    used = [
        replace(Used.from_sidecar(r.label, sidecar(r)), thresholds=verdict.thresholds)
        for r, verdict in zip(results, verdicts, strict=True)
    ]
    nothing = element("p", "No image is complete yet.")
    main.append(methods(used, around.sentences(results)) if results else nothing)
    data = [cutout_data(_volume(name), cutout) for name, cutout in cutouts.items()]
    content = page(
        f"{participant}: brainstem",
        main,
        script=SCRIPT if data else None,
        data=[library_data(), *data] if data else [],
        may_run=[library()] if data else [],
    )
    path = output_dir / report_name(participant)
    write_atomic(path, content)
    return path


# --- all images ---------------------------------------------------------------------------


def _overview(results: Sequence[Result], verdicts: Sequence[Verdict]) -> Markup:
    names = list(dict.fromkeys(row["name"] for result in results for row in _volumes(result)))
    rows = []
    for result, verdict in zip(results, verdicts, strict=True):
        sizes = {row["name"]: millilitres(row["volume_mm3"]) for row in _volumes(result)}
        rows.append(
            element(
                "tr",
                element(
                    "th", element("a", _title(result), href=f"#{_anchor(result)}"), scope="row"
                ),
                *(element("td", sizes.get(name, NOT_AVAILABLE), class_="number") for name in names),
                element("td", badges(verdict.flags)),
                class_="flagged" if verdict.flags else None,
            )
        )
    numbers = heads(*(volume_head(name) for name in names), class_="number")
    head = [*heads("Image and model"), *numbers, *heads("Flags")]
    return element("nav", table("All results", head, rows), aria_label="Results")


# --- one image ----------------------------------------------------------------------------


def _section(result: Result, verdict: Verdict, peers: Peers, *, viewer: bool) -> Markup:
    rows, model = _volumes(result), result.model
    sizes = {row["name"]: float(row["volume_mm3"]) for row in rows}
    quality = _mapping(sidecar(result).get("Quality"))
    thresholds = verdict.thresholds
    # The group level's own z scores, where they are there, are told with the flags.
    unusual = [] if verdict.scores else outlying(sizes, model, peers, thresholds)
    checked = quality | {column: abs(z) for column, z in verdict.scores.items()}

    def rank(name: str, volume: float) -> str | None:
        spread = peers.of(*model, name)
        return spread.rank(volume) if spread else None

    regions = [region(int(r["index"]), r["name"]) for r in rows if r["index"] != NOT_AVAILABLE]
    colors = {r.name: r.color for r in regions}
    drawn = {name: (v, colors.get(name, WHOLE_COLOR)) for name, v in sizes.items()}
    return element(
        "section",
        element("h2", foreign(_title(result)), id=_anchor(result)),
        element("p", "Source: ", element("code", foreign(result.source)), class_="quiet"),
        notice("Look at these before using the volumes", _explained(verdict)),
        notice("Unusual in this dataset", unusual),
        notice("Warnings while reading the image", _texts(result, "Warnings")),
        _picture(result),
        opener(_volume(_anchor(result)), _title(result), regions) if viewer else None,
        element(
            "div",
            element("div", volumes_table(rows, rank), strips(drawn, model, peers)),
            element("div", checks_table(checked, verdict.flags, thresholds)),
            class_="columns",
        ),
        measures_table(rows),
        quality_table(quality, thresholds),
        _provenance(result),
        aria_labelledby=_anchor(result),
    )


def _explained(verdict: Verdict) -> list[str]:
    meanings = {check.name: check.explain(verdict.thresholds) for check in CHECKS}
    regions = find_outliers(verdict.scores, verdict.thresholds)
    return [
        ": ".join(text for text in (flag, meanings.get(flag), regions.get(flag)) if text)
        for flag in verdict.flags
    ]


def _picture(result: Result) -> Markup:
    try:
        data = base64.b64encode(result.outputs.picture.read_bytes()).decode()
    except OSError:
        return element("p", "The picture of this result is missing.")
    regions = [
        f"{row['name']} ({millilitres(row['volume_mm3'])} ml)"
        for row in _volumes(result)
        if row["index"] != NOT_AVAILABLE
    ]
    alternative = (
        f"Sagittal, coronal and axial slices of {result.source} with outlines of "
        f"{', '.join(regions) or 'no region'}"
    )
    return element(
        "figure",
        scrolling("Picture", element("img", src=f"data:image/png;base64,{data}", alt=alternative)),
        element(
            "figcaption",
            "Slices through the brainstem along the voxel grid, with the outlines of the "
            "regions. In coronal and axial slices the participant's left is at the left. Ticks on "
            "the middle sagittal slice mark where the coronal and axial slices lie.",
        ),
    )


def _provenance(result: Result) -> Markup:
    content = sidecar(result)
    model = _mapping(content.get("Model"))
    entries = {
        "Label map": result.outputs.dseg.name,
        "Model": f"{model.get('Name', '')}, version {model.get('Version', '')}",
        "Licence": model.get("License", ""),
        "Model SHA-256": model.get("SHA256", ""),
        "Image SHA-256": content.get("InputSHA256", ""),
        "Settings": content.get("Settings", ""),
        "Device": content.get("Device", ""),
        "Seconds": content.get("Seconds", ""),
        "Software": content.get("SoftwareVersions", ""),
    }
    pairs = [
        join([element("dt", name), element("dd", foreign(text_of(value)))])
        for name, value in entries.items()
    ]
    return element("details", element("summary", "Provenance"), element("dl", *pairs))


# --- reading ------------------------------------------------------------------------------


def _image(result: Result) -> str:
    parts = [result.session, *(f"{key}-{value}" for key, value in result.entities.items())]
    return " ".join(part for part in parts if part) or "T1-weighted image"


def _title(result: Result) -> str:
    return f"{_image(result)}, model {result.model[0]}"


def _anchor(result: Result) -> str:
    return anchor(result.source, *result.model)


def _volume(name: str) -> str:
    """Name the element that carries a result's cut-out."""
    return f"{name}-cutout"


def _cutout(result: Result) -> bytes | None:
    try:
        return result.outputs.cutout.read_bytes()
    except OSError:
        return None


def _texts(result: Result, key: str) -> list[str]:
    value = sidecar(result).get(key)
    return [str(item) for item in value] if isinstance(value, list) else []


def _volumes(result: Result) -> list[Row]:
    try:
        return volumes(result)
    except OSError:  # a run is making it again
        return []


def _comparison(result: Result) -> list[Row]:
    try:
        return read_table(result.outputs.comparison)
    except OSError:  # of one model alone
        return []


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
