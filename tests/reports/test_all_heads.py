"""Pages of all real heads in a browser, viewer on: no fault, no request, small files.

With BRAINSTEM_SCREENSHOTS naming a folder, each page's picture is kept there to be looked at.
"""

import os
from pathlib import Path

import pytest
from chromium import AXE, Browser

from bids_app.cli.main import main

pytestmark = pytest.mark.slow
SCREENSHOTS = os.environ.get("BRAINSTEM_SCREENSHOTS")
LARGEST = 6_000_000  # bytes of a page with one image
VIEWERS = "document.querySelectorAll('.viewer')"


@pytest.mark.parametrize(("name", "heads"), [("ds011", 8), ("ds002748", 18), ("pumi", 1)])
def test_pages_of_real_heads_have_no_fault(shared_data, browser, tmp_path, name, heads):
    for level in ("participant", "group"):
        assert main([str(shared_data / name), str(tmp_path), level, "--skip-bids-validation"]) == 0
    pages = sorted(tmp_path.glob("*.html"))
    assert len(pages) == heads + 1
    for page in pages:
        assert faults_of(browser, page, name) == []


def faults_of(browser: Browser, page: Path, dataset: str) -> list[str]:
    """Open a page with all that it can show, and list what is wrong with it."""
    browser.open(page)
    faults = []
    for number in range(browser.run(f"{VIEWERS}.length")):
        browser.run(f"{VIEWERS}[{number}].querySelector('button').click()")
        browser.wait_for(f"{VIEWERS}[{number}].dataset.state")
        if browser.run(f"{VIEWERS}[{number}].dataset.state") != "open":
            faults.append("the viewer does not open")
    if SCREENSHOTS:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        browser.screenshot(Path(SCREENSHOTS, f"{dataset}_{page.stem}.png"), whole=True)
    if AXE:
        faults += browser.axe(Path(AXE))
    if page.stat().st_size > LARGEST:
        faults.append(f"{page.stat().st_size} bytes")
    asked = [address for address in browser.requests if address != page.resolve().as_uri()]
    return faults + browser.faults + asked
