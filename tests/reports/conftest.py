"""A small output dataset, made without a model."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from chromium import Browser, find_chromium
from made_brainstem import made

from bids_app.bids.columns import GROUP, GROUP_COMPARISON, LONGITUDINAL, VOLUMES
from bids_app.bids.results import read_agreement, read_failures, read_results
from bids_app.group.table import GroupTables
from bids_app.io.images import Volume
from bids_app.io.tables import data_dictionary, make_frame, table
from bids_app.regions import region
from bids_app.reports.group import group_page
from bids_app.reports.images.png import encode
from bids_app.reports.participant import participant_page

REGIONS = {"midbrain": 9000.0, "pons": 15000.0, "medulla": 5000.0}


class Dataset:
    """Writes results into an output dataset as the participant level does."""

    def __init__(self, folder: Path, name: str = "Brainstem regions of: Test") -> None:
        self.folder = folder
        self.name = name
        self.folder.mkdir(exist_ok=True)

    def add(self, image="sub-01", model="open", *, volumes=REGIONS, picture=None, **sidecar):
        """Add a result of the image with these entities; extra keys go to its sidecar."""
        entities = image.split("_")
        session = next((e for e in entities if e.startswith("ses-")), "")
        participant = self.folder / entities[0]
        anat = participant / session / "anat"
        for folder in (anat, participant / "figures"):
            folder.mkdir(parents=True, exist_ok=True)
        stem = f"{image}_seg-{model}1"
        source = "/".join(part for part in (entities[0], session, "anat", f"{image}_T1w.nii.gz"))
        content = {
            "Sources": [f"bids:raw:{source.replace('//', '/')}"],
            "Model": {"Name": model, "Version": "1.0.0", "Engine": "cascade",
                      "SHA256": "ab" * 32, "License": "CC0",
                      "Citation": "Someone, 2026. A model. https://doi.org/10.1000/xyz"},
            "InputSHA256": "cd" * 32,
            "Settings": {"Folds": "all", "Mirroring": True, "Region": False},
            "Device": "cpu",
            "SoftwareVersions": "bids_app 0.1.0, torch 2.13.0",
            "Quality": {"voxel_size_mm": [1.0, 1.0, 1.2], "etiv_mm3": 1500000.0},
            "Flags": [],
            "Warnings": [],
            "Seconds": 12.3,
        } | sidecar  # fmt: skip
        whole = sum(volumes.values())
        rows = [
            [str(i), name, region(i, name).abbreviation, f"{v:.0f}", f"{v:.3f}", f"{v:.3f}", "1",
             "0.000", "-30.000", "-40.000"]
            for i, (name, v) in enumerate(volumes.items(), 1)
        ]  # fmt: skip
        rows.append(["n/a", "brainstem", "BS", f"{whole:.0f}", f"{whole:.3f}", "n/a", "1"])
        rows[-1] += ["0.000", "-30.000", "-40.000"]
        rows = [row + ["n/a"] * (len(VOLUMES) - len(row)) for row in rows]
        text = "\n".join("\t".join(row) for row in (VOLUMES, *rows)) + "\n"
        (anat / f"{stem}_volumes.tsv").write_text(text, encoding="utf-8")
        (participant / "figures" / f"{stem}_dseg.png").write_bytes(picture or tiny_picture())
        (anat / f"{stem}_dseg.json").write_text(json.dumps(content))
        return self

    def participant(self, name="sub-01", thresholds=None) -> "Page":
        """Make a participant's page, write it and read it."""
        results = list(read_results(self.folder, name))
        content = participant_page(
            name,
            results,
            read_failures(self.folder),
            read_agreement(results),
            dataset_name=self.name,
            thresholds=thresholds,
        )
        (self.folder / f"{name}.html").write_bytes(content)
        return Page(content)

    def fail(self, image, reason, model="open"):
        """Add an image with these entities, and a line that says why it failed."""
        participant = image.split("_")[0]
        source = f"{participant}/anat/{image}_T1w.nii.gz"
        path = self.folder / "logs" / image / "failures.tsv"
        path.parent.mkdir(parents=True)
        head = ("participant_id", "source", "model", "model_version", "label", "reason")
        line = (participant, source, model, "1.0.0", f"{model}1", reason)
        path.write_bytes(table(head, [line]))
        return self

    def group(self, rows, **others) -> "Page":
        """Make the page of the dataset, write it and read it."""
        content = group_page(group_tables(rows, **others))
        (self.folder / "group.html").write_bytes(content)
        return Page(content)


def group_tables(rows, changes=(), agreement=(), columns=GROUP, **others) -> GroupTables:
    """Make the tables of the group level from rows of texts, ``n/a`` where one is missing."""

    def frame(rows, columns):
        values = [{k: columns[k].parse(text) for k, text in row.items()} for row in rows]
        return make_frame(values, columns)

    return GroupTables(
        volumes=frame(rows, columns),
        columns=data_dictionary(columns),
        changes=frame(changes, LONGITUDINAL),
        agreement=frame(agreement, GROUP_COMPARISON),
        **({"thresholds": {}, "dataset_name": "Test"} | others),
    )


def tiny_picture() -> bytes:
    greys = np.full((4, 6), 90, np.uint8)
    return encode(greys, np.zeros_like(greys), ["#E69F00"])


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser without a window, as large as a usual one."""
    command = find_chromium()
    if command is None:
        pytest.skip("needs Chromium or Chrome on this machine")
    with Browser(command, tmp_path_factory.mktemp("profile")) as browser:
        browser.resize(1300, 1000)
        yield browser


@pytest.fixture(scope="session")
def head():
    """An image and label map of plain shapes, the brainstem bright in the dark."""
    labels, affine = made("fine")
    data = np.where(labels > 0, 100, 20) + np.indices(labels.shape).sum(0) % 7
    return Volume(data.astype(np.float32), affine, None, "ab" * 32, ()), labels


@pytest.fixture
def dataset(tmp_path):
    return Dataset(tmp_path / "out")


class Page(HTMLParser):
    """A page as a browser reads it: elements with their attributes, and text by element."""

    def __init__(self, content: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._inside: list[str] = []
        self.source = content.decode("utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"style", "script"} & set(self._inside) and data.strip():
            self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        return [
            found
            for name, found in self.elements
            if name == tag and all(found.get(key) == value for key, value in attributes.items())
        ]
