"""What to cite for the results of an output dataset."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bids_app import __version__
from bids_app.io.files import write_if_changed
from bids_app.regions import PARTS, first_words, in_words
from bids_app.reports.bibliography import KNOWN
from bids_app.reports.methods_text import RESIDUAL_METHOD, thresholds_told

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_NNUNET_TEXT = "Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z"
_MDGRU_TEXT = "Andermatt et al. 2016, https://doi.org/10.1007/978-3-319-46976-8_15"
_MDGRU_CODE_TEXT = "Andermatt et al. 2018, https://doi.org/10.1007/978-3-319-75238-9_3"
_BIDS_TEXT = "Gorgolewski et al. 2016, https://doi.org/10.1038/sdata.2016.44"
_BIDS_APPS_TEXT = "Gorgolewski et al. 2017, https://doi.org/10.1371/journal.pcbi.1005209"
_METHOD = {
    "cascade": f"two nnU-Net networks ({_NNUNET_TEXT}), of which one locates the brainstem and the "
    "other tells its regions apart",
    "nnunet": f"an nnU-Net ({_NNUNET_TEXT})",
    "mdgru": f"a network of multi-dimensional gated recurrent units ({_MDGRU_TEXT}; code: "
    f"{_MDGRU_CODE_TEXT})",
}
_OF_ENGINE = {
    "cascade": f"nnU-Net: {_NNUNET_TEXT}",
    "nnunet": f"nnU-Net: {_NNUNET_TEXT}",
    "mdgru": f"MD-GRU: {_MDGRU_TEXT}; its code: {_MDGRU_CODE_TEXT}",
}
_SHOWN_VERSIONS = ("torch", "openvino", "nnunetv2")
_HEAD = """# Methods and citations

A text for a methods section and the references for each model that was used here, and for what
the group level did. In `CITATION.bib` are the same references for a reference manager.
"""


@dataclass(frozen=True)
class Locator:
    """The model whose first network located the brainstem for another one."""

    label: str
    name: str
    version: str
    licence: str
    reference: str

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> Locator | None:
        """Read the entry of a sidecar; None where there is none."""
        keys = ("Label", "Name", "Version", "License", "Citation")
        return cls(*(str(entry.get(key, "")) for key in keys)) if entry else None


@dataclass(frozen=True)
class Used:
    """A model as it was used for a result, told by the sidecar of the label map.

    Attributes
    ----------
    label : str
        As in file names.
    engine, name, version, licence, reference : str
        Of the model; the engine is ``cascade``, ``nnunet`` or ``mdgru``, or empty.
    settings : dict
        Those that change a label map.
    software : dict of str to str
        Versions by package.
    etiv : bool
        Whether the intracranial volume was estimated.
    thresholds : dict of str to float
        Of flags, where they are not the app's.
    networks : int
        Of a model of nnU-Nets, where that is known, else 0.
    mode : str
        Version of nnU-Net whose arithmetic was used, as ``v1``, or empty.
    regions : tuple of str
        Names of the model's labels.
    largest : tuple of tuple of str
        Those that were looked at as one, to keep their largest component, step by step.
    locator : Locator or None
        The model that located the brainstem for it.
    """

    label: str
    engine: str
    name: str
    version: str
    licence: str
    reference: str
    settings: Mapping[str, Any]
    software: Mapping[str, str]
    etiv: bool = False
    thresholds: Mapping[str, float] = field(default_factory=dict)
    networks: int = 0
    mode: str = ""
    regions: tuple[str, ...] = PARTS
    largest: tuple[tuple[str, ...], ...] = ()
    locator: Locator | None = None

    @classmethod
    def from_sidecar(cls, label: str, sidecar: Mapping[str, Any]) -> Used:
        """Read the sidecar of a label map; what is missing there is empty."""
        model, settings = (_mapping(sidecar.get(key)) for key in ("Model", "Settings"))
        engine, name, version, licence, reference = (
            str(model.get(key, "")) for key in ("Engine", "Name", "Version", "License", "Citation")
        )
        engine = engine if engine in _METHOD else ""
        pairs = re.findall(r"(\w+) ([^\s,]+)", str(sidecar.get("SoftwareVersions", "")))
        # Before a run has results, the sidecar that stands for them knows none of their measures.
        etiv = "etiv_mm3" in _mapping(sidecar.get("Quality"))
        etiv |= engine == "cascade" and "Quality" not in sidecar
        told = _mapping(sidecar.get("FlagThresholds"))
        thresholds = {k: float(v) for k, v in told.items() if isinstance(v, int | float)}
        software = dict(pairs)
        networks = model.get("Networks")
        return cls(
            label, engine, name, version, licence, reference, settings, software, etiv, thresholds,
            networks=networks if isinstance(networks, int) else 0,
            mode=str(model.get("Mode", "")),
            regions=tuple(map(str, model.get("Regions", PARTS))),
            largest=tuple(tuple(map(str, names)) for names in model.get("LargestComponent", ())),
            locator=Locator.from_entry(_mapping(sidecar.get("Locator"))),
        )  # fmt: skip


def merged(all_used: Iterable[Used]) -> list[Used]:
    """Take the results of one model together where they differ in nothing that a text tells.

    That the intracranial volume cannot be told on some images makes no difference.
    """
    found: dict[str, Used] = {}
    for used in all_used:
        plain = replace(used, etiv=False)
        key = f"{used.label} {boilerplate(plain) if used.engine else plain}"
        found[key] = replace(used, etiv=used.etiv or (key in found and found[key].etiv))
    return list(found.values())


def boilerplate(used: Used) -> str:
    """Describe in one paragraph how regions were segmented, for a methods section.

    Parameters
    ----------
    used : Used
        With an engine.
    """
    app = used.software.get("bids_app", __version__)
    versions = ", ".join(f"{p} {used.software[p]}" for p in _SHOWN_VERSIONS if p in used.software)
    verb = "were" if len(used.regions) > 1 else "was"
    sentences = [
        f"{first_words(used.regions)} {verb} segmented on the T1-weighted images by the "
        f"brainstem BIDS App {app}{f' ({versions})' if versions else ''} with the model "
        f"{used.name} (version {used.version}, licence {used.licence}; {_short(used.reference)}): "
        f"{_method(used)}."
    ]
    folds = used.settings.get("Folds")
    if isinstance(folds, list) and folds:
        all_networks = f"the model's {used.networks} networks" if used.networks else "its networks"
        named = ", ".join(map(str, folds))
        sentences.append(f"Of {all_networks} those of fold {named} were used.")
    mirroring = used.settings.get("Mirroring") if used.engine != "mdgru" else None
    if mirroring is True:
        sentences.append("Predictions on the image and on its mirror images were averaged.")
    elif mirroring is False:
        sentences.append("Predictions on mirror images (test-time augmentation) were left out.")
    if used.settings.get("Region") is True:
        told = "The network saw the part of the image around the brainstem alone"
        if located := used.locator:
            told += (
                f", which the first network of the model {located.name} (version "
                f"{located.version}, licence {located.licence}; {_short(located.reference)}) found"
            )
        sentences.append(f"{told}.")
    if used.largest:
        kept = "; ".join(
            in_words(names) + (" together" if len(names) > 1 else "") for names in used.largest
        )
        sentences.append(f"Small components beside the largest one were removed, of {kept}.")
    sentences.append("The volume of a region is its number of voxels times the volume of a voxel.")
    if used.etiv:
        sentences.append(
            "The intracranial volume (eTIV) was estimated, where it can be told, by the network "
            "that locates the brainstem, as the sum of its probabilities of the inside of the "
            "skull."
        )
    sentences.append(
        "Results were flagged by measures of quality that need no ground truth, with "
        f"{thresholds_told(used.thresholds)}."
    )
    sentences.append(
        f"Input and output follow BIDS ({_BIDS_TEXT}) and its Apps ({_BIDS_APPS_TEXT})."
    )
    return " ".join(sentences)


def references(used: Used) -> list[str]:
    """Name what is to be cited, the model first."""
    engine = [_OF_ENGINE[used.engine]] if used.engine else []
    model = [used.reference] if used.reference else []
    if used.locator:
        model.append(used.locator.reference)
        engine.append(_OF_ENGINE["cascade"])
    everyones = [f"BIDS: {_BIDS_TEXT}", f"BIDS Apps: {_BIDS_APPS_TEXT}"]
    return list(dict.fromkeys([*model, *engine, *everyones]))


def _method(used: Used) -> str:
    """Name the method, of nnU-Nets with their number and arithmetic where these are known."""
    text = _METHOD[used.engine]
    if used.engine != "nnunet":
        return text
    folds = used.settings.get("Folds")
    number = len(folds) if isinstance(folds, list) else used.networks
    if number > 1:
        text = f"an ensemble of {number} nnU-Nets ({_NNUNET_TEXT})"
    return f"{text}, run with the arithmetic of nnU-Net version 1" if used.mode == "v1" else text


def write_citations(logs: Path, models: Iterable[Used]) -> None:
    """Write ``CITATION.md`` and ``CITATION.bib``; what earlier models need stays in them.

    Where results of one model differ in what a text tells, all texts are written.
    """
    by_label: dict[str, list[Used]] = {}
    for used in merged(models):
        by_label.setdefault(used.label, []).append(used)
    sections: dict[str, str] = {}
    entries: dict[str, str] = {}
    for label, ways in by_label.items():
        texts = [boilerplate(used) for used in ways if used.engine]
        if len(texts) > 1:
            texts.insert(0, f"Results of this model were made in {len(texts)} ways:")
        cited = dict.fromkeys(text for used in ways for text in references(used))
        sections[f"Model {label}"] = "\n\n".join([*texts, _listed(cited)])
        entries |= {_key(entry): entry for used in ways for entry in _entries(used)}
    _rewrite(logs, sections, entries)


def mixed_settings(all_used: Iterable[Used]) -> list[str]:
    """Name the models whose results were made with different settings, and these, in a line each.

    Returns
    -------
    list of str
        As ``open 1.3.0: Mirroring no 2, yes 4``.
    """
    counts: dict[str, dict[str, Counter[str]]] = {}
    for used in all_used:
        of_model = counts.setdefault(f"{used.name} {used.version}", {})
        for key, value in used.settings.items():
            of_model.setdefault(key, Counter())[_in_words(value)] += 1
    lines = []
    for model, of_model in counts.items():
        different = [
            f"{key} {', '.join(f'{value} {n:,}' for value, n in sorted(values.items()))}"
            for key, values in of_model.items()
            if len(values) > 1
        ]
        if different:
            lines.append(f"{model}: {'; '.join(different)}")
    return lines


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def group_references(sentences: Mapping[str, str]) -> list[str]:
    """Name what is to be cited for `bids_app.reports.methods_text.group_sentences`."""
    return [f"Residual method: {RESIDUAL_METHOD}"] if "adjusted" in sentences else []


def write_group_citations(logs: Path, sentences: Mapping[str, str]) -> None:
    """Write what the group level did into the same files, in the place of what it did before."""
    cited = group_references(sentences)
    text = " ".join(sentences.values()) + (f"\n\n{_listed(cited)}" if cited else "")
    entries = {_key(entry): entry for entry in _known(cited)}
    _rewrite(logs, {"Group level": text}, entries)


def _rewrite(logs: Path, sections: Mapping[str, str], entries: Mapping[str, str]) -> None:
    """Put sections, by their heads, and entries, by their keys, in the place of those before."""
    page, bib = logs / "CITATION.md", logs / "CITATION.bib"
    told = _sections(page, r"\n(?=## )", "## ") | {
        head: f"## {head}\n\n{text}" for head, text in sections.items()
    }
    ordered = sorted(told, key=lambda head: (not head.startswith("Model "), head))
    content = "\n\n".join([_HEAD.strip(), *(told[head] for head in ordered)])
    write_if_changed(page, (content + "\n").encode("utf-8", "replace"))
    known = _sections(bib, r"\n(?=@)", "@") | dict(entries)
    content = "\n\n".join(known[key] for key in sorted(known))
    write_if_changed(bib, (content + "\n").encode("utf-8", "replace"))


def _listed(cited: Iterable[str]) -> str:
    return "Please cite:\n\n" + "\n".join(f"- {text}" for text in cited)


def _known(cited: Iterable[str]) -> Iterator[str]:
    """Give the entries for BibTeX of all that is named by a known DOI."""
    named = set(re.findall(r"10\.\d{4,}/[^\s,;()]*[^\s,;().]", " ".join(cited)))
    yield from (entry for doi, entry in KNOWN.items() if doi in named)


def _entries(used: Used) -> Iterator[str]:
    """Give entries for BibTeX: of all that `references` names by a known DOI, and of models."""
    yield from _known(references(used))
    for model in (used, used.locator):
        own = re.search(r"https://doi\.org/(10\.\S+)$", model.reference) if model else None
        if model and model.reference and (own is None or own[1] not in KNOWN):
            note = re.sub(r"([&%$#_])", r"\\\1", re.sub(r"[{}\\~^]", "", model.reference))
            doi = f",\n  doi = {{{own[1]}}}" if own else ""
            yield f"@misc{{model_{model.label},\n  note = {{{note}}}{doi}\n}}"


def _short(reference: str) -> str:
    """Shorten a reference to its authors and year, where it begins with them."""
    match = re.match(r"(.{1,80}?\b(?:19|20)\d\d)(?:[.,;]|$)", reference)
    return match[1] if match else reference.rstrip(".")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _sections(path: Path, separator: str, start: str) -> dict[str, str]:
    if not path.is_file():
        return {}
    parts = re.split(separator, "\n" + path.read_text(encoding="utf-8"))
    return {_key(part): part.strip() for part in parts if part.startswith(start)}


def _key(section: str) -> str:
    first = section.strip().splitlines()[0]
    return re.sub(r"^(## |@\w+\{)|,$", "", first)
