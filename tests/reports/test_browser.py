"""Pages in a real browser: nothing fails or asks a network, the viewer shows voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chromium import AXE
from PIL import Image

from bids_app.reports.images.cutout import cut_out

from .test_group import row

OPEN = "document.querySelector('.viewer').dataset.state"


@pytest.fixture
def page(dataset, head) -> Path:
    """A participant with two sessions, each with a cut-out."""
    for session in ("1", "2"):
        dataset.add(f"sub-01_ses-{session}")
        figures = dataset.folder / "sub-01" / "figures"
        (figures / f"sub-01_ses-{session}_seg-open1_cutout.nii.gz").write_bytes(cut_out(*head))
    dataset.participant()
    return dataset.folder / "sub-01.html"


def test_the_viewer_opens_by_keyboard_and_moves_without_fault_or_request(browser, page):
    browser.open(page)
    assert not browser.run("'niivue' in window")
    browser.run("document.querySelector('.viewer button').focus()")
    browser.press("Enter")
    browser.wait_for(OPEN)
    assert browser.run(OPEN) == "open"
    browser.run("document.querySelector('.viewer canvas').focus()")
    shown = []
    for key in ("ArrowRight", "ArrowLeft"):
        browser.press(key)
        shown.append(browser.run("document.querySelector('.viewer output').textContent"))
    assert all(text.endswith(": pons") for text in shown)
    assert shown[0] != shown[1]
    assert browser.faults == []
    assert browser.requests == [page.resolve().as_uri()]


def test_one_viewer_is_open_at_a_time_and_closes(browser, page):
    browser.open(page)
    for number in (0, 1):
        browser.run(f"document.querySelectorAll('.viewer button')[{number}].click()")
        browser.wait_for(f"document.querySelectorAll('.viewer')[{number}].dataset.state")
        assert browser.run("document.querySelectorAll('.viewer canvas').length") == 1
    browser.run("document.querySelectorAll('.viewer button')[1].click()")
    assert browser.run("document.querySelectorAll('.viewer canvas').length") == 0
    assert browser.faults == []


def test_the_viewer_shows_each_region_in_its_colour(browser, page, tmp_path):
    browser.open(page)
    browser.run("document.querySelector('.viewer button').click()")
    browser.wait_for(OPEN)
    browser.run("document.querySelector('.viewer').scrollIntoView()")
    browser.screenshot(tmp_path / "viewer.png")
    top = browser.run("document.querySelector('.viewer canvas').getBoundingClientRect().bottom")
    shown = np.asarray(Image.open(tmp_path / "viewer.png").convert("HSV"))[: int(top)].astype(int)
    vivid = shown[..., 0][shown[..., 1] > 40]
    for color in ("#E69F00", "#56B4E9", "#009E73"):  # laid over the image: paler, of the same hue
        hue = Image.new("RGB", (1, 1), color).convert("HSV").getpixel((0, 0))[0]
        assert (np.abs(vivid - hue) < 8).sum() > 500, color


def test_a_hostile_page_runs_nothing_of_the_dataset(browser, dataset):
    hostile = "<script>window.bad = 1</script>\"'><img src=x onerror='window.bad=1'>\u202e" * 50
    keys = ("Name", "Version", "SHA256", "License", "Citation")
    dataset.__init__(dataset.folder.parent / "evil", hostile)
    dataset.add(Sources=[hostile], Model=dict.fromkeys(keys, hostile), Flags=[hostile])
    dataset.participant()
    browser.open(dataset.folder / "sub-01.html")
    assert browser.run("window.bad === undefined")
    width = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert browser.run(width)
    assert browser.faults == []


@pytest.mark.skipif(AXE is None, reason="AXE_CORE does not name axe.min.js of the npm package")
def test_axe_finds_no_fault(browser, page):
    browser.open(page)
    browser.run("document.querySelector('.viewer button').click()")
    browser.wait_for(OPEN)
    assert browser.axe(Path(AXE)) == []


@pytest.mark.skipif(AXE is None, reason="AXE_CORE does not name axe.min.js of the npm package")
def test_axe_finds_no_fault_in_the_page_of_a_dataset(browser, dataset):
    failed = row("sub-02", flags="failed") | {"failure": "truncated"}
    dataset.group([row(), row("sub-03", flags="wrong_order,low_resolution"), failed])
    browser.open(dataset.folder / "group.html")
    assert browser.axe(Path(AXE)) == []
    assert browser.faults == []
