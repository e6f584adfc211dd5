"""Whatever is in a dataset or in the output folder, a run ends as the documentation says.

Each example ends with a documented exit code within 20 seconds, prints no traceback and one line
for each fault, writes nothing outside OUTPUT_DIR, leaves no temporary file, and finishes the good
image.

``make test`` runs a few examples of each kind, always the same; ``make fuzz`` runs BRAINSTEM_FUZZ
of each, drawn at random.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import time
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import nibabel as nib
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from make_fixture_model import write_random_model
from strategies import ODD_BYTES, SCRIPT, odd_image, odd_json, odd_table

from bids_app.cli import main as cli
from bids_app.models import install
from bids_app.segmentation import segmenter

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = int(os.environ.get("BRAINSTEM_FUZZ", "0"))
SECONDS = 20
DOCUMENTED = {0, 1, 2, 3, 4, 5, 6}
SIDECAR = "sub-01/anat/sub-01_seg-quick_dseg.json"


def faults(short: int) -> Any:
    """Settings of a property: `short` examples in ``make test``."""
    return settings(
        max_examples=EXAMPLES or short,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,  # `run` measures the time, without that of the first imports
        phases=[Phase.generate, Phase.shrink] if EXAMPLES else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class Place:
    """A folder with a dataset of one good image, and its results."""

    top: Path
    head: bytes = field(repr=False)
    model: Path
    dataset: str = "bids"

    @property
    def bids(self) -> Path:
        return self.top / self.dataset

    @property
    def out(self) -> Path:
        return self.top / "out"

    def copy(self) -> Place:
        """A fresh copy, beside the first one; an earlier copy is removed."""
        top = self.top.with_name("copy")
        shutil.rmtree(top, ignore_errors=True)
        shutil.copytree(self.top, top, symlinks=True)
        return Place(top, self.head, self.model)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, coarse_dataset: Path) -> Any:
    top = tmp_path_factory.mktemp("faults") / "first"
    shutil.copytree(coarse_dataset / "sub-01", top / "bids" / "sub-01")
    shutil.copy(coarse_dataset / "dataset_description.json", top / "bids")
    (head,) = (top / "bids").glob("sub-01/anat/*.nii*")
    models = tmp_path_factory.mktemp("models")
    trained = write_random_model(
        models / "trained", folds=1, spacing=(6.0, 6.0, 6.0), patch_size=(32, 40, 32)
    )
    model = install.import_model(trained, "quick", models).folder
    load = cache(lambda folder: load_segmenters(*arguments[folder]))
    arguments: dict[Path, Any] = {}
    load_segmenters = segmenter.load_segmenters

    def loaded_once(model: Any, *rest: Any) -> Any:
        arguments.setdefault(model.folder, (model, *rest))
        return load(model.folder)

    # the same networks as a run of its own would load, but only once
    segmenter.load_segmenters = loaded_once
    try:
        whole = Place(top, nib.load(head).to_bytes(), model)
        assert run(whole, "participant", "--no-tta").code == 0
        yield whole
    finally:
        segmenter.load_segmenters = load_segmenters


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    said: str

    def lines(self, start: str) -> list[str]:
        return [line for line in self.said.splitlines() if line.startswith(start)]


def run(place: Place, level: str, *options: str) -> Ended:
    """Run a level in this process, and check what holds for all runs."""
    words = [str(place.bids), str(place.out), level, *options]
    if level == "participant":
        words += ["--model", str(place.model), "--nprocs", "1", "--skip-bids-validation"]
    before = contents(place.bids)
    beside = {path.name for path in place.top.iterdir()}
    said = io.StringIO()
    started = time.process_time()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = cli.main(words)
    assert time.process_time() - started < SECONDS
    ended = Ended(code, said.getvalue())
    assert code in DOCUMENTED, said
    assert "Traceback" not in ended.said
    assert "unexpected" not in ended.said, ended.said
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\x9b\u202e\ud800-\udfff]", ended.said)
    assert contents(place.bids) == before, "the source data"
    assert {path.name for path in place.top.iterdir()} <= beside | {"out"}
    left = [path for path in place.out.rglob("*") if path.suffix in (".tmp", ".lock")]
    assert not left
    return ended


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def is_done(place: Place) -> bool:
    return bool(json.loads((place.out / SIDECAR).read_bytes())["Files"])


def check_pages(place: Place) -> None:
    """No page holds HTML of a dataset as HTML."""
    for page in place.out.glob("*.html"):
        text = re.sub(r'(?s)<script type="application/gzip".*?</script>', "", page.read_text())
        assert SCRIPT not in text, page.name


@given(st.data())
@faults(4)
def test_any_image(place: Place, data: st.DataObject) -> None:
    here = place.copy()
    images = data.draw(st.lists(odd_image(place.head), min_size=2, max_size=6))
    for number, content in enumerate(images):
        folder = here.bids / f"sub-bad{number}" / "anat"
        folder.mkdir(parents=True)
        ending = data.draw(st.sampled_from([".nii", ".nii.gz"]))
        (folder / f"sub-bad{number}_T1w{ending}").write_bytes(content)
    shutil.rmtree(here.out)
    ended = run(
        here, "participant", "--no-tta", *data.draw(st.sampled_from([[], ["--assume-ras"]]))
    )
    assert is_done(here)
    results = list(here.out.glob("sub-bad*/anat/*_dseg.json"))
    refused = ended.lines("ERROR: sub-bad")
    event(f"refused: {len(refused)} of {len(images)}")
    assert len(results) + len(refused) == len(images)
    assert ended.code == (1 if refused else 0)
    assert run(here, "group").code == 0
    assert len((here.out / "group_volumes.tsv").read_text().splitlines()) == 2 + len(images)


RAW_KEYS = ["Manufacturer", "ManufacturersModelName", "MagneticFieldStrength", "InstitutionName"]
DESCRIPTION = {"Name": "x", "BIDSVersion": "1.10.0"}
# The files of a dataset that the group level reads.
METADATA = {
    "sub-01/anat/sub-01_T1w.json": odd_json(RAW_KEYS),
    "T1w.json": odd_json(RAW_KEYS),
    "participants.json": odd_json(["age"]),
    "participants.tsv": odd_table(["participant_id", "age"], ["sub-01", "01", "sub-02"]),
    "sub-01/sub-01_scans.tsv": odd_table(["filename", "acq_time"], ["anat/sub-01_T1w.nii.gz"]),
    "sub-01/sub-01_sessions.tsv": odd_table(["session_id", "acq_time"], ["ses-1", "1"]),
    ".bidsignore": ODD_BYTES,
}


@given(st.data())
@faults(8)
def test_any_metadata(place: Place, data: st.DataObject) -> None:
    here = place.copy()
    for name in data.draw(st.lists(st.sampled_from(sorted(METADATA)), min_size=1, unique=True)):
        (here.bids / name).write_bytes(data.draw(METADATA[name]))
    options = ["--covariates", "age"] if (here.bids / "participants.tsv").exists() else []
    ended = run(here, "group", *options)
    event(f"exit code {ended.code}")
    assert ended.code in ((0, 2, 4) if options else (0,))
    if ended.code:
        assert len(ended.lines("error: ")) == 1
        assert run(here, "group").code == 0
    lines = (here.out / "group_volumes.tsv").read_bytes().decode().split("\n")
    assert len({line.count("\t") for line in lines[:-1]}) == 1, "a table of equal rows"
    check_pages(here)


@given(odd_json(["Name", "License", "Authors", "DatasetDOI", "DatasetType"], DESCRIPTION))
@faults(4)
def test_any_description_of_the_dataset(place: Place, description: bytes) -> None:
    here = place.copy()
    (here.bids / "dataset_description.json").write_bytes(description)
    shutil.rmtree(here.out)
    ended = run(here, "participant", "--no-tta")
    event(f"exit code {ended.code}")
    assert ended.code in (0, 4)
    if ended.code:
        assert len(ended.lines("error: ")) == 1
    else:
        assert is_done(here)
        check_pages(here)


OWN_KEYS = [
    "Sources", "Model", "Localizer", "InputSHA256", "Settings", "Device", "SoftwareVersions",
    "Quality", "Flags", "FlagThresholds", "Warnings", "Seconds", "Verified", "Files",
]  # fmt: skip
OWN_TABLES = ["logs/CITATION.md", "group_ratings.tsv", "logs/20990101-000000_0/failures.tsv"]


@given(st.data())
@faults(6)
def test_any_file_of_the_output(place: Place, data: st.DataObject) -> None:
    here = place.copy()
    sidecar = json.loads((here.out / SIDECAR).read_bytes())
    written = [p.relative_to(here.out).as_posix() for p in here.out.rglob("*") if p.is_file()]
    own = sorted(name for name in written if name.startswith("sub-01/"))
    name = data.draw(st.sampled_from([SIDECAR] * 4 + own + OWN_TABLES))
    content = odd_json(OWN_KEYS, sidecar) if name == SIDECAR else ODD_BYTES
    (here.out / name).parent.mkdir(parents=True, exist_ok=True)
    (here.out / name).write_bytes(data.draw(content))
    event(name.rpartition("/")[2])
    assert run(here, "group").code in (0, 2, 3)
    assert run(here, "participant", "--reports-only").code in (0, 3)
    check_pages(here)
    assert run(here, "participant", "--no-tta").code == 0
    assert is_done(here), "what is damaged is made again"
    (here.out / "group_ratings.tsv").unlink(missing_ok=True)
    assert run(here, "group").code == 0
    check_pages(here)


@given(odd_json(["GeneratedBy", "SourceDatasets", "DatasetLinks", "Name"], {"Name": "x"}))
@faults(4)
def test_any_description_of_the_output(place: Place, description: bytes) -> None:
    here = place.copy()
    (here.out / "dataset_description.json").write_bytes(description)
    for level, *options in (["group"], ["participant", "--no-tta"]):
        ended = run(here, level, *options)
        event(f"{level}: exit code {ended.code}")
        assert ended.code in (0, 6)
        assert len(ended.lines("error: ")) == (ended.code != 0)


# What a name of a file may hold; hypothesis would take long to hit upon bytes that are no UTF-8.
NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\x00")
    | st.sampled_from("\udcff\udc80\n\x1b\x9b\u202e _-+=<'\""),
    min_size=1,
    max_size=20,
).filter(lambda name: name not in (".", ".."))


@given(st.lists(NAMES, min_size=1, max_size=5), NAMES, NAMES)
@faults(6)
def test_any_names(place: Place, names: list[str], participant: str, root: str) -> None:
    here = place.copy()
    try:
        for name in names:
            (here.bids / f"sub-01/anat/sub-01_acq-{name}_T1w.nii.gz").write_bytes(b"bad")
        (here.bids / f"sub-{participant}" / "anat").mkdir(parents=True, exist_ok=True)
        here.bids.rename(here.top / f"root{root}")
    except OSError:  # longer than names may be
        return
    shutil.rmtree(here.out)
    there = replace(here, dataset=f"root{root}")
    ended = run(there, "participant", "--no-tta")
    assert is_done(there)
    event(f"exit code {ended.code}")
    assert ended.code in (0, 1)
    odd = len(ended.lines("WARNING: sub-01/anat/")) + len(ended.lines("ERROR: sub-01/anat/"))
    assert odd == len(set(names)), "a line for each"
