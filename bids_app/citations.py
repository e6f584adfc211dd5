"""What to cite for the results of an output dataset."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bids_app import __version__
from bids_app.files import write_if_changed

if TYPE_CHECKING:
    from pathlib import Path

    from bids_app.models.store import Model

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
_ENGINE = {"cascade": _NNUNET, "nnunet": _NNUNET, "mdgru": _MDGRU}
_METHOD = {
    "cascade": "nnU-Net networks (Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z)",
    "nnunet": "an nnU-Net (Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z)",
    "mdgru": "an MD-GRU network (Andermatt et al. 2018, "
    "https://doi.org/10.1007/978-3-319-75238-9_3)",
}
_HEAD = """# Methods and citations

Please cite what you used:

- BIDS (Gorgolewski et al. 2016, https://doi.org/10.1038/sdata.2016.44) and BIDS Apps
  (Gorgolewski et al. 2017, https://doi.org/10.1371/journal.pcbi.1005209).
"""


def boilerplate(engine: str, name: str, version: str, licence: str, reference: str) -> str:
    """Describe in one paragraph how regions were segmented, for a methods section.

    Parameters
    ----------
    engine : str
        ``cascade``, ``nnunet`` or ``mdgru``.
    name, version, licence, reference : str
        Of the model.
    """
    return (
        "Midbrain, pons and medulla oblongata were segmented on the T1-weighted images with the "
        f"model {name} (version {version}, licence {licence}; {reference.rstrip('.')}), by "
        f"{_METHOD[engine]}, run by the brainstem BIDS App {__version__}. Volumes are numbers of "
        "voxels times the volume of a voxel."
    )


def write_citations(logs: Path, model: Model) -> None:
    """Write ``CITATION.md`` and ``CITATION.bib``; what earlier models need stays in them."""
    section = f"\n## Model {model.label}\n\n" + boilerplate(
        model.engine, model.name, model.version, model.licence, model.reference
    )
    sections = _sections(logs / "CITATION.md", r"\n(?=## Model )", "## Model ")
    sections[model.label] = section.strip()
    text = "\n\n".join([_HEAD.strip(), *(sections[key] for key in sorted(sections))])
    write_if_changed(logs / "CITATION.md", (text + "\n").encode())

    entries = _sections(logs / "CITATION.bib", r"\n(?=@)", "@")
    for entry in (_BIDS, _BIDS_APPS, _ENGINE[model.engine], _entry(model)):
        entries[_key(entry)] = entry
    bib = "\n\n".join(entries[key] for key in sorted(entries))
    write_if_changed(logs / "CITATION.bib", (bib + "\n").encode())


def _entry(model: Model) -> str:
    if model.doi == "10.1002/hbm.70141":
        return _MARS
    doi = f",\n  doi = {{{model.doi}}}" if model.doi else ""
    note = re.sub(r"[{}\\]", "", model.citation)
    return f"@misc{{model_{model.label},\n  note = {{{note}}}{doi}\n}}"


def _sections(path: Path, separator: str, start: str) -> dict[str, str]:
    if not path.is_file():
        return {}
    parts = re.split(separator, "\n" + path.read_text(encoding="utf-8"))
    return {_key(part): part.strip() for part in parts if part.startswith(start)}


def _key(section: str) -> str:
    first = section.strip().splitlines()[0]
    return re.sub(r"^(## Model |@\w+\{)|,$", "", first)
