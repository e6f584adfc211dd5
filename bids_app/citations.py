"""What to cite for the results of an output dataset."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bids_app import __version__
from bids_app.files import write_if_changed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_MARS = """@article{gesierich2025,
  title = {Extended technical and clinical validation of deep learning-based brainstem
           segmentation for application in neurodegenerative diseases},
  author = {Gesierich, Benno and Sander, Laura and others},
  journal = {Human Brain Mapping},
  year = {2025},
  doi = {10.1002/hbm.70141}
}"""
_NNUNET = """@article{isensee2021,
  title = {{nnU-Net}: a self-configuring method for deep learning-based biomedical image
           segmentation},
  author = {Isensee, Fabian and Jaeger, Paul F. and Kohl, Simon A. A. and Petersen, Jens and
            Maier-Hein, Klaus H.},
  journal = {Nature Methods},
  volume = {18},
  pages = {203--211},
  year = {2021},
  doi = {10.1038/s41592-020-01008-z}
}"""
_MDGRU = """@incollection{andermatt2018,
  title = {Automated segmentation of multiple sclerosis lesions using multi-dimensional gated
           recurrent units},
  author = {Andermatt, Simon and Pezold, Simon and Cattin, Philippe C.},
  booktitle = {Brainlesion: Glioma, Multiple Sclerosis, Stroke and Traumatic Brain Injuries},
  year = {2018},
  doi = {10.1007/978-3-319-75238-9_3}
}"""
_BIDS = """@article{gorgolewski2016,
  title = {The brain imaging data structure, a format for organizing and describing outputs of
           neuroimaging experiments},
  author = {Gorgolewski, Krzysztof J. and others},
  journal = {Scientific Data},
  volume = {3},
  pages = {160044},
  year = {2016},
  doi = {10.1038/sdata.2016.44}
}"""
_BIDS_APPS = """@article{gorgolewski2017,
  title = {{BIDS} apps: Improving ease of use, accessibility, and reproducibility of neuroimaging
           data analysis methods},
  author = {Gorgolewski, Krzysztof J. and others},
  journal = {PLOS Computational Biology},
  volume = {13},
  pages = {e1005209},
  year = {2017},
  doi = {10.1371/journal.pcbi.1005209}
}"""
_SYNTHSEG = """@article{billot2023,
  title = {{SynthSeg}: Segmentation of brain {MRI} scans of any contrast and resolution without
           retraining},
  author = {Billot, Benjamin and others},
  journal = {Medical Image Analysis},
  volume = {86},
  pages = {102789},
  year = {2023},
  doi = {10.1016/j.media.2023.102789}
}"""
_ALLEN = """@article{ding2016,
  title = {Comprehensive cellular-resolution atlas of the adult human brain},
  author = {Ding, Song-Lin and others},
  journal = {Journal of Comparative Neurology},
  volume = {524},
  pages = {3127--3481},
  year = {2016},
  doi = {10.1002/cne.24080}
}"""
_KNOWN = {
    re.search(r"doi = \{(.+)\}", entry)[1]: entry  # type: ignore[index]
    for entry in (_MARS, _NNUNET, _MDGRU, _BIDS, _BIDS_APPS, _SYNTHSEG, _ALLEN)
}
_NNUNET_TEXT = "Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z"
_MDGRU_TEXT = "Andermatt et al. 2018, https://doi.org/10.1007/978-3-319-75238-9_3"
_BIDS_TEXT = "Gorgolewski et al. 2016, https://doi.org/10.1038/sdata.2016.44"
_BIDS_APPS_TEXT = "Gorgolewski et al. 2017, https://doi.org/10.1371/journal.pcbi.1005209"
_METHOD = {
    "cascade": f"two nnU-Net networks ({_NNUNET_TEXT}), of which one locates the brainstem and the "
    "other tells its regions apart",
    "nnunet": f"an nnU-Net ({_NNUNET_TEXT})",
    "mdgru": f"a network of multi-dimensional gated recurrent units ({_MDGRU_TEXT})",
}
_OF_ENGINE = {
    "cascade": f"nnU-Net: {_NNUNET_TEXT}",
    "nnunet": f"nnU-Net: {_NNUNET_TEXT}",
    "mdgru": f"MD-GRU: {_MDGRU_TEXT}",
}
_SHOWN_VERSIONS = ("torch", "openvino", "nnunetv2")
_HEAD = """# Methods and citations

A text for a methods section and the references for each model that was used here. In
`CITATION.bib` are the same references for a reference manager.
"""


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
    """

    label: str
    engine: str
    name: str
    version: str
    licence: str
    reference: str
    settings: Mapping[str, Any]
    software: Mapping[str, str]

    @classmethod
    def from_sidecar(cls, label: str, sidecar: Mapping[str, Any]) -> Used:
        """Read the sidecar of a label map; what is missing there is empty."""
        model, settings = (_mapping(sidecar.get(key)) for key in ("Model", "Settings"))
        engine, name, version, licence, reference = (
            str(model.get(key, "")) for key in ("Engine", "Name", "Version", "License", "Citation")
        )
        engine = engine if engine in _METHOD else ""
        pairs = re.findall(r"(\w+) ([^\s,]+)", str(sidecar.get("SoftwareVersions", "")))
        return cls(label, engine, name, version, licence, reference, settings, dict(pairs))


def boilerplate(used: Used) -> str:
    """Describe in one paragraph how regions were segmented, for a methods section.

    Parameters
    ----------
    used : Used
        With an engine.
    """
    app = used.software.get("bids_app", __version__)
    versions = ", ".join(f"{p} {used.software[p]}" for p in _SHOWN_VERSIONS if p in used.software)
    sentences = [
        "Midbrain, pons and medulla oblongata were segmented on the T1-weighted images by the "
        f"brainstem BIDS App {app}{f' ({versions})' if versions else ''} with the model "
        f"{used.name} (version {used.version}, licence {used.licence}; {_short(used.reference)}): "
        f"{_METHOD[used.engine]}."
    ]
    folds = used.settings.get("Folds")
    if isinstance(folds, list) and folds:
        sentences.append(f"Of its networks those of fold {', '.join(map(str, folds))} were used.")
    if used.settings.get("Mirroring") is True and used.engine != "mdgru":
        sentences.append("Predictions on the image and on its mirror images were averaged.")
    if used.settings.get("Region") is True:
        sentences.append("The network saw the part of the image around the brainstem alone.")
    sentences.append(
        "The volume of a region is its number of voxels times the volume of a voxel. Input and "
        f"output follow BIDS ({_BIDS_TEXT}) and its Apps ({_BIDS_APPS_TEXT})."
    )
    return " ".join(sentences)


def references(used: Used) -> list[str]:
    """Name what is to be cited, the model first."""
    engine = [_OF_ENGINE[used.engine]] if used.engine else []
    model = [used.reference] if used.reference else []
    return [*model, *engine, f"BIDS: {_BIDS_TEXT}", f"BIDS Apps: {_BIDS_APPS_TEXT}"]


def write_citations(logs: Path, models: Iterable[Used]) -> None:
    """Write ``CITATION.md`` and ``CITATION.bib``; what earlier models need stays in them."""
    sections = _sections(logs / "CITATION.md", r"\n(?=## Model )", "## Model ")
    entries = _sections(logs / "CITATION.bib", r"\n(?=@)", "@")
    for used in models:
        listed = "\n".join(f"- {text}" for text in references(used))
        text = f"{boilerplate(used)}\n\n" if used.engine else ""
        sections[used.label] = f"## Model {used.label}\n\n{text}Please cite:\n\n{listed}"
        for entry in _entries(used):
            entries[_key(entry)] = entry
    text = "\n\n".join([_HEAD.strip(), *(sections[key] for key in sorted(sections))])
    write_if_changed(logs / "CITATION.md", (text + "\n").encode("utf-8", "replace"))
    bib = "\n\n".join(entries[key] for key in sorted(entries))
    write_if_changed(logs / "CITATION.bib", (bib + "\n").encode("utf-8", "replace"))


def _entries(used: Used) -> Iterator[str]:
    """Give entries for BibTeX: of all that `references` names by a known DOI, and of the model."""
    named = set(re.findall(r"10\.\d{4,}/[^\s,;()]*[^\s,;().]", " ".join(references(used))))
    yield from (entry for doi, entry in _KNOWN.items() if doi in named)
    own = re.search(r"https://doi\.org/(10\.\S+)$", used.reference)
    if used.reference and (own is None or own[1] not in _KNOWN):
        note = re.sub(r"([&%$#_])", r"\\\1", re.sub(r"[{}\\~^]", "", used.reference))
        doi = f",\n  doi = {{{own[1]}}}" if own else ""
        yield f"@misc{{model_{used.label},\n  note = {{{note}}}{doi}\n}}"


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
    return re.sub(r"^(## Model |@\w+\{)|,$", "", first)
