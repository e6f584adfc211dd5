"""What to cite for the results of an output dataset."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bids_app.bids.labels import SUFFIXES, T1W, suffix_of
from bids_app.io.files import read_packaged, write_if_changed
from bids_app.io.tables import dump_json, read_json
from bids_app.regions import PARTS, first_words, in_words
from bids_app.reports.methods_text import RESIDUAL_METHOD, thresholds_text
from bids_app.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from bids_app.bids.results import Sidecar

_NNUNET = "Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z"
_MDGRU = "Andermatt et al. 2016, https://doi.org/10.1007/978-3-319-46976-8_15"
_MDGRU_CODE = "Andermatt et al. 2018, https://doi.org/10.1007/978-3-319-75238-9_3"
_BIDS = "Gorgolewski et al. 2016, https://doi.org/10.1038/sdata.2016.44"
_BIDS_APPS = "Gorgolewski et al. 2017, https://doi.org/10.1371/journal.pcbi.1005209"
_METHOD = {
    "cascade": f"two nnU-Net networks ({_NNUNET}): one locates the brainstem, the other segments "
    "its regions, first on the axes of the image, then in a canonical frame that is fixed to the "
    "brainstem",
    "nnunet": f"an nnU-Net ({_NNUNET})",
    "mdgru": f"a network of multi-dimensional gated recurrent units ({_MDGRU}; code: "
    f"{_MDGRU_CODE})",
}
_ENGINE = {
    "cascade": f"nnU-Net: {_NNUNET}",
    "nnunet": f"nnU-Net: {_NNUNET}",
    "mdgru": f"MD-GRU: {_MDGRU}; its code: {_MDGRU_CODE}",
}
_IMAGES = {
    T1W: "T1-weighted",
    "T2w": "T2-weighted",
    "FLAIR": "FLAIR",
    "UNIT1": "uniform MP2RAGE",
    "PDw": "proton-density-weighted",
    "T2starw": "T2*-weighted",
}
_SHOWN_VERSIONS = ("torch", "openvino", "nnunetv2")
_VOLUMES = (
    "The volume of a region is the sum of its probabilities within 3 mm of its largest component."
)
_DOI = re.compile(r"10\.\d{4,}/[^\s,;()]*[^\s,;().]")
_HEAD = """# Methods and citations

For each model that was used, and for the group level: a text for a methods section, and what to
cite. `CITATION.bib` holds the same references for a reference manager.
"""


# --- how a model was used -----------------------------------------------------------------


@dataclass(frozen=True)
class Localizer:
    """The model whose first network located the brainstem for another model."""

    label: str
    name: str
    version: str
    licence: str
    reference: str


@dataclass(frozen=True)
class ModelUse:
    """A model and how it was used for a result, from the sidecar of the label map.

    Attributes
    ----------
    label : str
        Label in file names.
    engine : str
        ``cascade``, ``nnunet`` or ``mdgru``; empty if unknown.
    name, version, licence, reference : str
        Of the model.
    settings : dict
        Settings that change a label map.
    software : dict of str to str
        Versions by package.
    etiv : bool
        Whether the intracranial volume was estimated.
    thresholds : dict of str to float
        Thresholds of flags that differ from the defaults.
    networks : int
        Number of nnU-Nets of the model; 0 if unknown.
    mode : str
        ``v1`` if the networks ran with the arithmetic of nnU-Net version 1.
    regions : tuple of str
        Names of the model's labels.
    largest : tuple of tuple of str
        Steps of postprocessing: regions of which, taken together, the largest component was kept.
    localizer : Localizer or None
        The model that located the brainstem for this one.
    suffixes : tuple of str
        Kinds of images that it was used on.
    """

    label: str
    engine: str
    name: str
    version: str
    licence: str
    reference: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    software: Mapping[str, str] = field(default_factory=dict)
    etiv: bool = False
    thresholds: Mapping[str, float] = field(default_factory=dict)
    networks: int = 0
    mode: str = ""
    regions: tuple[str, ...] = PARTS
    largest: tuple[tuple[str, ...], ...] = ()
    localizer: Localizer | None = None
    suffixes: tuple[str, ...] = (T1W,)

    @classmethod
    def from_sidecar(cls, label: str, sidecar: Sidecar) -> ModelUse:
        """Describe how a model was used for a result; what the sidecar lacks is empty."""
        model, by = sidecar.model, sidecar.localizer
        engine = model.engine if model.engine in _METHOD else ""
        # The sidecar of results yet to be made has no measures.
        etiv = "etiv_mm3" in sidecar.quality or (engine == "cascade" and not sidecar.quality)
        return cls(
            label, engine, model.name, model.version, model.license, model.citation,
            settings=sidecar.settings,
            software=dict(re.findall(r"(\w+) ([^\s,]+)", sidecar.software_versions)),
            etiv=etiv,
            thresholds=sidecar.flag_thresholds,
            networks=model.networks,
            mode=model.mode,
            regions=model.regions,
            largest=model.largest_component,
            localizer=Localizer(
                by.label, by.name, by.version, by.license, by.citation
            ) if by else None,
            suffixes=tuple(suffix_of(uri) for uri in sidecar.sources[:1]) or (T1W,),
        )  # fmt: skip


def merge_uses(uses: Iterable[ModelUse]) -> list[ModelUse]:
    """Merge uses that the methods text describes in the same words.

    Whether the intracranial volume could be estimated on every image makes no difference, nor do
    the kinds of images.
    """
    found: dict[str, ModelUse] = {}
    for use in uses:
        plain = replace(use, etiv=False, suffixes=(T1W,))
        key = f"{use.label} {methods_paragraph(plain) if use.engine else plain}"
        known = found.get(key, use)
        used = {*use.suffixes, *known.suffixes}
        found[key] = replace(
            use,
            etiv=use.etiv or known.etiv,
            suffixes=tuple(suffix for suffix in SUFFIXES if suffix in used),
        )
    return list(found.values())


def mixed_settings(uses: Iterable[ModelUse]) -> list[str]:
    """Find models whose results were made with different settings.

    Returns
    -------
    list of str
        A line for each such model: ``open 1.3.0: Mirroring no 2, yes 4``.
    """
    counts: dict[str, dict[str, Counter[str]]] = {}
    for use in uses:
        settings = counts.setdefault(f"{use.name} {use.version}", {})
        for key, value in use.settings.items():
            settings.setdefault(key, Counter())[_setting(value)] += 1
    lines = []
    for model, settings in counts.items():
        different = [
            f"{key} {', '.join(f'{value} {n:,}' for value, n in sorted(values.items()))}"
            for key, values in settings.items()
            if len(values) > 1
        ]
        if different:
            lines.append(f"{model}: {'; '.join(different)}")
    return lines


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


# --- the methods text and its references --------------------------------------------------


def methods_paragraph(use: ModelUse) -> str:
    """Describe for a methods section how regions were segmented; needs a known engine."""
    app = use.software.get("bids_app", __version__)
    versions = ", ".join(f"{p} {use.software[p]}" for p in _SHOWN_VERSIONS if p in use.software)
    verb = "were" if len(use.regions) > 1 else "was"
    images = in_words([_IMAGES[suffix] for suffix in use.suffixes])
    sentences = [
        f"{first_words(use.regions)} {verb} segmented on the {images} images by the brainstem "
        f"BIDS App {app}{f' ({versions})' if versions else ''} with the model {use.name} (version "
        f"{use.version}, licence {use.licence}; {_short(use.reference)}): {_method(use)}.",
        *_settings_sentences(use),
        _VOLUMES,
    ]
    if use.etiv:
        sentences.append(
            "The intracranial volume (eTIV) was estimated, where possible, by the network that "
            "locates the brainstem, as the sum of its probabilities of the inside of the skull."
        )
    sentences += [
        "Results were flagged by quality measures that need no ground truth, with "
        f"{thresholds_text(use.thresholds)}.",
        f"Input and output follow BIDS ({_BIDS}) and BIDS Apps ({_BIDS_APPS}).",
    ]
    return " ".join(sentences)


def _method(use: ModelUse) -> str:
    text = _METHOD[use.engine]
    if use.engine != "nnunet":
        return text
    folds = use.settings.get("Folds")
    number = len(folds) if isinstance(folds, list) else use.networks
    if number > 1:
        text = f"an ensemble of {number} nnU-Nets ({_NNUNET})"
    return f"{text}, run with the arithmetic of nnU-Net version 1" if use.mode == "v1" else text


def _settings_sentences(use: ModelUse) -> Iterator[str]:
    folds = use.settings.get("Folds")
    if isinstance(folds, list) and folds:
        networks = f"the model's {use.networks} networks" if use.networks else "its networks"
        yield f"Of {networks}, those of fold {', '.join(map(str, folds))} were used."
    mirroring = use.settings.get("Mirroring") if use.engine != "mdgru" else None
    if mirroring is True:
        yield "Predictions on the image and on its mirror images were averaged."
    elif mirroring is False:
        yield "Predictions on mirror images (test-time augmentation) were left out."
    if use.settings.get("Region") is True:
        found = ""
        if by := use.localizer:
            found = (
                f", which the first network of the model {by.name} (version {by.version}, licence "
                f"{by.licence}; {_short(by.reference)}) located"
            )
        yield f"The network saw only the part of the image around the brainstem{found}."
    if use.largest:
        kept = "; ".join(
            in_words(names) + (" together" if len(names) > 1 else "") for names in use.largest
        )
        yield f"Small components apart from the largest one were removed, of {kept}."


def references(use: ModelUse) -> list[str]:
    """List what to cite for a model, the model itself first."""
    models = [model.reference for model in (use, use.localizer) if model and model.reference]
    engines = [_ENGINE[name] for name in (use.engine, use.localizer and "cascade") if name]
    everyones = [f"BIDS: {_BIDS}", f"BIDS Apps: {_BIDS_APPS}"]
    return list(dict.fromkeys([*models, *engines, *everyones]))


def group_references(sentences: Mapping[str, str]) -> list[str]:
    """List what to cite for the sentences of `bids_app.reports.methods_text.group_sentences`."""
    return [f"Residual method: {RESIDUAL_METHOD}"] if "adjusted" in sentences else []


def _short(reference: str) -> str:
    """Shorten a reference to its authors and year, if it begins with them."""
    match = re.match(r"(.{1,80}?\b(?:19|20)\d\d)(?:[.,;]|$)", reference)
    return match[1] if match else reference.rstrip(".")


# --- files --------------------------------------------------------------------------------


class _Section(BaseModel):
    """What ``CITATION.md`` says of a model or of the group level."""

    model_config = ConfigDict(frozen=True)
    paragraphs: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    bibtex: dict[str, str] = {}

    def markdown(self) -> str:
        listed = "\n".join(f"- {text}" for text in self.references)
        return "\n\n".join([*self.paragraphs, *(["Please cite:", listed] if listed else [])])


class _Record(BaseModel):
    """Content of ``citations.json``: sections by model label, and that of the group level."""

    model_config = ConfigDict(frozen=True)

    models: dict[str, _Section] = {}
    group: _Section | None = None


def write_citations(
    logs: Path, uses: Iterable[ModelUse] = (), sentences: Mapping[str, str] | None = None
) -> None:
    """Write ``CITATION.md`` and ``CITATION.bib`` for all models of a dataset.

    Models that earlier runs used are kept in ``citations.json``, as is the group level.

    Parameters
    ----------
    logs : Path
        Folder of the files.
    uses : iterable of ModelUse
        They replace what is on record for the same labels. If the text differs between uses of
        one model, all texts are written.
    sentences : mapping of str to str, optional
        Of `bids_app.reports.methods_text.group_sentences`; they replace those on record.
    """
    record = _read(logs / "citations.json")
    by_label: dict[str, list[ModelUse]] = {}
    for use in merge_uses(uses):
        by_label.setdefault(use.label, []).append(use)
    models = record.models | {label: _model_section(uses) for label, uses in by_label.items()}
    group = record.group if sentences is None else _group_section(sentences)
    record = _Record(models=dict(sorted(models.items())), group=group)
    titled = {f"Model {label}": section for label, section in record.models.items()}
    if record.group:
        titled["Group level"] = record.group
    page = [_HEAD.strip(), *(f"## {title}\n\n{s.markdown()}" for title, s in titled.items())]
    entries = {key: entry for s in titled.values() for key, entry in s.bibtex.items()}
    _write(logs / "CITATION.md", "\n\n".join(page))
    _write(logs / "CITATION.bib", "\n\n".join(entries[key] for key in sorted(entries)))
    write_if_changed(logs / "citations.json", dump_json(record.model_dump()))


def _read(path: Path) -> _Record:
    try:
        return _Record.model_validate(read_json(path))
    except ValidationError:
        return _Record()


def _write(path: Path, text: str) -> None:
    write_if_changed(path, (text + "\n").encode(errors="backslashreplace"))


def _model_section(uses: list[ModelUse]) -> _Section:
    paragraphs = [methods_paragraph(use) for use in uses if use.engine]
    if len(paragraphs) > 1:
        paragraphs.insert(0, f"Results of this model were made in {len(paragraphs)} ways:")
    cited = dict.fromkeys(text for use in uses for text in references(use))
    bibtex = _known(cited)
    for use in uses:
        for model in (use, use.localizer):
            if model and model.reference:
                bibtex |= _own_entry(model)
    return _section(paragraphs, cited, bibtex)


def _group_section(sentences: Mapping[str, str]) -> _Section:
    cited = group_references(sentences)
    return _section([" ".join(sentences.values())], cited, _known(cited))


def _section(paragraphs: Iterable[str], cited: Iterable[str], bibtex: dict[str, str]) -> _Section:
    """Make a section; lone surrogates, which UTF-8 cannot encode, become question marks."""

    def encodable(text: str) -> str:
        return text.encode("utf-8", "replace").decode()

    return _Section(
        paragraphs=tuple(map(encodable, paragraphs)),
        references=tuple(map(encodable, cited)),
        bibtex={key: encodable(entry) for key, entry in bibtex.items()},
    )


def _known(cited: Iterable[str]) -> dict[str, str]:
    """Find the BibTeX entries, by key, of everything that is cited by a known DOI."""
    dois = set(_DOI.findall(" ".join(cited)))
    return {key: entry for doi, (key, entry) in _bibliography().items() if doi in dois}


def _own_entry(model: ModelUse | Localizer) -> dict[str, str]:
    """Make a BibTeX entry of a model, unless its DOI is a known one."""
    doi = re.search(r"https://doi\.org/(10\.\S+)$", model.reference)
    if doi and doi[1] in _bibliography():
        return {}
    note = re.sub(r"([&%$#_])", r"\\\1", re.sub(r"[{}\\~^]", "", model.reference))
    field_ = f",\n  doi = {{{doi[1]}}}" if doi else ""
    key = f"model_{model.label}"
    return {key: f"@misc{{{key},\n  note = {{{note}}}{field_}\n}}"}


@cache
def _bibliography() -> dict[str, tuple[str, str]]:
    """Read ``references.bib``: key and entry by DOI."""
    text = read_packaged(__package__, "references.bib").decode()
    entries = re.findall(
        r"^(@\w+\{(\w+),\n.*?^  doi = \{(.+?)\}\n\})$", text, re.DOTALL | re.MULTILINE
    )
    return {doi: (key, entry) for entry, key, doi in entries}
