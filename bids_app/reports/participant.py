"""The page of one participant, made from the participant's own results alone."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bids_app.bids.columns import VOLUMES
from bids_app.bids.labels import T1W, suffix_of
from bids_app.bids.outputs import GROUP_REPORT
from bids_app.measures.flags import CHECKS, FLAGS, reapply_thresholds
from bids_app.regions import of_brainstem, region
from bids_app.reports.citations import ModelUse, merge_uses, methods_paragraph, references
from bids_app.reports.page import anchor, niivue_gz, render
from bids_app.reports.quality import check_lines, measure_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bids_app.bids.results import Failure, ModelAgreement, RegionVolume, Result
    from bids_app.regions import Region
    from bids_app.reports.quality import CheckLine, MeasureLine

_SHOWN_ABOVE = ("index", "name", "abbreviation", "volume_mm3")  # or not worth a line


def participant_page(
    participant: str,
    results: Sequence[Result],
    failures: Sequence[Failure],
    agreement: Sequence[ModelAgreement],
    *,
    dataset_name: str,
    thresholds: Mapping[str, float] | None = None,
) -> bytes:
    """Make the page of a participant.

    Parameters
    ----------
    participant : str
        As ``sub-01``.
    results : sequence of Result
        All complete results of the participant.
    failures : sequence of Failure
        Images that could not be processed; those of other participants, and those that are
        complete now, are left out.
    agreement : sequence of ModelAgreement
        How models agree on the participant's images.
    dataset_name : str
        Name of the derivative dataset.
    thresholds : mapping of str to float, optional
        Thresholds by which flags are set again. By default flags are those of the results.

    Returns
    -------
    bytes
        HTML with its pictures inside. The same arguments give the same bytes.
    """
    sections = [_Section(result, thresholds or {}) for result in results]
    complete = {(result.label, result.source) for result in results}
    failed = [
        f"{failure.source}, model {failure.model}: {failure.reason}"
        for failure in sorted(failures, key=lambda failure: (failure.label, failure.source))
        if failure.participant == participant and (failure.label, failure.source) not in complete
    ]
    uses = merge_uses(section.use for section in sections)
    viewers = any(section.cutout for section in sections)
    return render(
        "participant.html.j2",
        script="viewer.js" if viewers else "",
        title=f"{participant}: brainstem",
        participant=participant,
        dataset=dataset_name,
        home=GROUP_REPORT,
        sections=sections,
        regions=list(dict.fromkeys(v.name for result in results for v in result.volumes)),
        flagged=sum(bool(section.flags) for section in sections),
        failed=failed,
        agreement=_agreement_table(agreement),
        meanings=FLAGS,
        texts=list(dict.fromkeys(methods_paragraph(use) for use in uses if use.engine)),
        cited=list(dict.fromkeys(text for use in uses for text in references(use))),
        niivue=base64.b64encode(niivue_gz()).decode() if viewers else "",
    )


@dataclass(frozen=True)
class _Section:
    """What the page shows of one result.

    Attributes
    ----------
    result : Result
        A complete result of the participant.
    asked : mapping of str to float
        Thresholds that the user asks for, by which flags are set again.
    """

    result: Result
    asked: Mapping[str, float]

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """Thresholds that differ from the defaults."""
        return {**self.result.sidecar.flag_thresholds, **self.asked}

    @cached_property
    def flags(self) -> tuple[str, ...]:
        """Flags of the result."""
        sidecar = self.result.sidecar
        if not self.asked:
            return sidecar.flags
        unknown = (flag for flag in sidecar.flags if flag not in FLAGS)
        return (*reapply_thresholds(sidecar.flags, sidecar.quality, self.thresholds), *unknown)

    @property
    def explained(self) -> list[str]:
        """Flags with their meanings."""
        meanings = {check.name: check.explain(self.thresholds) for check in CHECKS}
        return [f"{f}: {meanings[f]}" if f in meanings else f for f in self.flags]

    @property
    def use(self) -> ModelUse:
        """How the model was used."""
        use = ModelUse.from_sidecar(self.result.label, self.result.sidecar)
        return replace(use, thresholds=self.thresholds)

    @property
    def title(self) -> str:
        """Image and model."""
        return f"{_image_name(self.result)}, model {self.result.model[0]}"

    @property
    def anchor(self) -> str:
        """Id of the section."""
        return anchor(self.result.source, *self.result.model)

    # --- picture and viewer ---

    @cached_property
    def picture(self) -> str:
        """PNG, base64; empty if it is missing."""
        return base64.b64encode(self.result.picture() or b"").decode()

    @cached_property
    def cutout(self) -> str:
        """Compressed NIfTI, base64; empty if it is missing."""
        return base64.b64encode(self.result.cutout() or b"").decode()

    @cached_property
    def regions(self) -> list[Region]:
        """Regions of the label map."""
        return [region(v.index, v.name) for v in self.result.volumes if v.index is not None]

    @property
    def regions_json(self) -> str:
        """What the viewer needs to know of the regions."""
        shown = ({"index": r.index, "name": r.name, "color": r.color} for r in self.regions)
        return json.dumps(list(shown))

    # --- tables ---

    @cached_property
    def volumes(self) -> dict[str, RegionVolume]:
        """Volumes by region."""
        return {row.name: row for row in self.result.volumes}

    def share(self, row: RegionVolume) -> str:
        """Share of a region in the whole brainstem, in per cent."""
        whole = next((v.volume_mm3 for v in self.result.volumes if v.index is None), 0)
        parts = {part.name for part in of_brainstem(self.regions)}
        known = whole and (row.index is None or row.name in parts)
        return f"{100 * row.volume_mm3 / whole:.1f}" if known else "n/a"

    @property
    def measures(self) -> list[tuple[str, str, list[Any]]]:
        """All other columns of the table of volumes: name, description, a value per region."""
        lines = (
            (name, column.description, [getattr(row, name) for row in self.result.volumes])
            for name, column in VOLUMES.items()
            if name not in _SHOWN_ABOVE
        )
        return [line for line in lines if any(value is not None for value in line[2])]

    @property
    def checks(self) -> list[CheckLine]:
        """Checks of quality."""
        return list(check_lines(self.result.sidecar.quality, self.thresholds))

    @property
    def quality(self) -> tuple[list[str], list[MeasureLine], list[MeasureLine]]:
        """Quality measures: names of regions, then lines by region and other lines."""
        return measure_lines(self.result.sidecar.quality, self.thresholds)

    @property
    def provenance(self) -> dict[str, str]:
        """Where the result comes from."""
        sidecar = self.result.sidecar
        model = sidecar.model
        return {
            "Label map": self.result.outputs.dseg.name,
            "Model": f"{model.name}, version {model.version}",
            "Licence": model.license,
            "Model SHA-256": model.sha256,
            "Image SHA-256": sidecar.input_sha256,
            "Voxel size (mm)": _text(sidecar.voxel_size_mm),
            "Settings": _text(sidecar.settings),
            "Device": sidecar.device,
            "Seconds": _text(sidecar.seconds),
            "Software": sidecar.software_versions,
        }


def _image_name(image: Result | ModelAgreement) -> str:
    suffix = suffix_of(image.source)
    parts = [image.session, *(f"{key}-{value}" for key, value in image.entities.items())]
    parts.append("" if suffix == T1W else suffix)
    return " ".join(part for part in parts if part) or "T1-weighted image"


def _agreement_table(agreement: Sequence[ModelAgreement]) -> dict[str, Any]:
    """Group rows by image and pair of models: a row by region for each."""
    lines: dict[tuple[str, str], dict[str, ModelAgreement]] = {}
    for row in agreement:
        pair = (
            f"{row.model} {row.model_version} and {row.other_model} {row.other_model_version}"
        ).replace(" n/a", "")
        lines.setdefault((_image_name(row), pair), {})[row.name] = row
    return {"regions": list(dict.fromkeys(row.name for row in agreement)), "lines": lines}


def _text(value: Any) -> str:
    """Write a value of a sidecar on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
