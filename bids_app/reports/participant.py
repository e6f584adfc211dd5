"""The page of one participant: every image and model, to be judged by eye and traced back."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from bids_app.citations import boilerplate
from bids_app.derivatives import NOT_AVAILABLE, read_results, report_name
from bids_app.files import write_atomic
from bids_app.models.store import region
from bids_app.quality import FLAGS
from bids_app.reports.markup import element, foreign, join, with_links
from bids_app.reports.page import (
    anchor,
    badges,
    heads,
    measure_name,
    millilitres,
    page,
    scrolling,
    swatch,
    table,
    title_block,
    volume_head,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bids_app.derivatives import Result
    from bids_app.reports.markup import Markup

    Row = dict[str, str]


def write_report(output_dir: Path, participant: str) -> Path:
    """Write a participant's page from the output dataset alone.

    Parameters
    ----------
    output_dir : Path
        The derivative dataset.
    participant : str
        As ``sub-01``.

    Returns
    -------
    Path
        The page: one file with its pictures inside, the same bytes for the same results.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    results = list(read_results(output_dir, participant))
    flagged = sum(bool(_flags(result)) for result in results)
    main = [title_block(participant, output_dir, len(results), flagged)]
    if len(results) > 1:
        main.append(_overview(results))
    main += [_section(result) for result in results]
    main.append(_methods(results) if results else element("p", "No image is complete yet."))
    path = output_dir / report_name(participant)
    write_atomic(path, page(f"{participant}: brainstem", main))
    return path


# --- all images ---------------------------------------------------------------------------


def _overview(results: Sequence[Result]) -> Markup:
    names = list(dict.fromkeys(row["name"] for result in results for row in _volumes(result)))
    rows = []
    for result in results:
        volumes = {row["name"]: millilitres(row["volume_mm3"]) for row in _volumes(result)}
        rows.append(
            element(
                "tr",
                element(
                    "th", element("a", _title(result), href=f"#{_anchor(result)}"), scope="row"
                ),
                *(
                    element("td", volumes.get(name, NOT_AVAILABLE), class_="number")
                    for name in names
                ),
                element("td", badges(_flags(result))),
                class_="flagged" if _flags(result) else None,
            )
        )
    numbers = heads(*(volume_head(name) for name in names), class_="number")
    head = [*heads("Image and model"), *numbers, *heads("Flags")]
    return element("nav", table("All results", head, rows), aria_label="Results")


# --- one image ----------------------------------------------------------------------------


def _section(result: Result) -> Markup:
    return element(
        "section",
        element("h2", foreign(_title(result)), id=_anchor(result)),
        element("p", "Source: ", element("code", foreign(result.source)), class_="quiet"),
        _notice("Look at these before using the volumes", _explained(_flags(result))),
        _notice("Warnings while reading the image", _texts(result, "Warnings")),
        _picture(result),
        element(
            "div",
            element("div", _volumes_table(result)),
            element("div", _quality_table(result)),
            class_="columns",
        ),
        _provenance(result),
        aria_labelledby=_anchor(result),
    )


def _notice(heading: str, items: Iterable[str]) -> Markup | None:
    entries = [element("li", foreign(item)) for item in items]
    if not entries:
        return None
    return element("div", element("h3", heading), element("ul", *entries), class_="notice")


def _explained(flags: Iterable[str]) -> list[str]:
    return [f"{flag}: {FLAGS[flag]}" if flag in FLAGS else flag for flag in flags]


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


def _volumes_table(result: Result) -> Markup:
    rows = _volumes(result)
    whole = next((r["volume_mm3"] for r in rows if r["index"] == NOT_AVAILABLE), NOT_AVAILABLE)
    names = ("Volume (ml)", "mm³", "Share (%)", "Soft volume (ml)", "Voxels", "Pieces")
    head = [*heads("Region"), *heads(*names, class_="number")]
    return join(
        [
            table("Volumes", head, [_volumes_row(row, whole) for row in rows]),
            element(
                "p",
                "Share: of the whole brainstem. Soft volume: sum of the region's probabilities. "
                "Pieces: connected parts of the region; specks of a few voxels count too.",
                class_="note",
            ),
        ]
    )


def _volumes_row(row: Row, whole: str) -> Markup:
    is_whole = row["index"] == NOT_AVAILABLE
    color = None if is_whole else swatch(region(int(row["index"]), row["name"]).color)
    numbers = [
        millilitres(row["volume_mm3"]),
        f"{float(row['volume_mm3']):,.1f}",
        _share(row["volume_mm3"], whole),
        millilitres(row["soft_volume_mm3"]),
        f"{int(row['voxels']):,}",
        row["clusters"],
    ]
    return element(
        "tr",
        element("th", color, foreign(row["name"]), scope="row"),
        *(element("td", number, class_="number") for number in numbers),
        class_="whole" if is_whole else None,
    )


def _share(part: str, whole: str) -> str:
    if whole == NOT_AVAILABLE or float(whole) == 0:
        return NOT_AVAILABLE
    return f"{100 * float(part) / float(whole):.1f}"


def _quality_table(result: Result) -> Markup | None:
    quality = _mapping(result.sidecar.get("Quality"))
    if not quality:
        return None
    rows = [
        element(
            "tr",
            element("th", foreign(measure_name(key)), scope="row"),
            element("td", foreign(_value(value))),
        )
        for key, value in quality.items()
    ]
    return table("Quality", heads("Measure", "Value"), rows)


def _provenance(result: Result) -> Markup:
    sidecar = result.sidecar
    model = _mapping(sidecar.get("Model"))
    entries = {
        "Label map": result.outputs.dseg.name,
        "Model": f"{model.get('Name', '')}, version {model.get('Version', '')}",
        "Licence": model.get("License", ""),
        "Model SHA-256": model.get("SHA256", ""),
        "Image SHA-256": sidecar.get("InputSHA256", ""),
        "Settings": sidecar.get("Settings", ""),
        "Device": sidecar.get("Device", ""),
        "Seconds": sidecar.get("Seconds", ""),
        "Software": sidecar.get("SoftwareVersions", ""),
    }
    pairs = [
        join([element("dt", name), element("dd", foreign(_value(value)))])
        for name, value in entries.items()
    ]
    return element("details", element("summary", "Provenance"), element("dl", *pairs))


# --- methods ------------------------------------------------------------------------------


def _methods(results: Iterable[Result]) -> Markup:
    texts: dict[str, None] = {}
    references: dict[str, None] = {}
    for result in results:
        model = _mapping(result.sidecar.get("Model"))
        name, version, licence, reference = (
            str(model.get(key, "")) for key in ("Name", "Version", "License", "Citation")
        )
        if engine := model.get("Engine"):
            texts[boilerplate(str(engine), name, version, licence, reference)] = None
        references[reference] = None
    return element(
        "section",
        element("h2", "Methods and citations", id="methods"),
        element("p", "A text for a methods section:", class_="text") if texts else None,
        *(element("blockquote", element("p", with_links(text))) for text in texts),
        element("p", "Please cite the model:", class_="text"),
        element("ul", *(element("li", with_links(text)) for text in references), class_="text"),
        element(
            "p",
            "All that is to be cited, also for a reference manager, is in ",
            element("code", "logs/CITATION.md"),
            " and ",
            element("code", "logs/CITATION.bib"),
            " of this dataset.",
            class_="text",
        ),
        aria_labelledby="methods",
    )


# --- reading ------------------------------------------------------------------------------


def _title(result: Result) -> str:
    parts = [result.session, *(f"{key}-{value}" for key, value in result.entities.items())]
    image = " ".join(part for part in parts if part) or "T1-weighted image"
    return f"{image}, model {_mapping(result.sidecar.get('Model')).get('Name', result.label)}"


def _anchor(result: Result) -> str:
    model = _mapping(result.sidecar.get("Model"))
    return anchor(
        result.source, str(model.get("Name", result.label)), str(model.get("Version", ""))
    )


def _flags(result: Result) -> list[str]:
    return _texts(result, "Flags")


def _texts(result: Result, key: str) -> list[str]:
    value = result.sidecar.get(key)
    return [str(item) for item in value] if isinstance(value, list) else []


def _volumes(result: Result) -> list[Row]:
    try:
        return result.volumes()
    except OSError:  # a run is making it again
        return []


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _value(value: Any) -> str:
    """Write a value of a sidecar in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
