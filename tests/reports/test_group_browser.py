"""The group's page in a browser: sorted, filtered and rated with mouse or keyboard."""

import pytest
from chromium import Browser, find_chromium

from .test_group import row

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
PEOPLE = "[...document.querySelectorAll('.results tbody th')].map((c) => c.textContent)"
EVIL = "<img src=x onerror=alert(1)>\"'\u202e"


@pytest.fixture
def page(dataset, tmp_path):
    rows = [row(f"sub-{i:03d}", scale=1 + (i * 37 % 100) / 100) for i in range(250)]
    rows[7] = row("sub-007", flags="wrong_order,fragmented", scale=0.5)
    rows[8] = row("sub-008", flags="failed")
    rows[9] |= {"participant_id": EVIL}
    dataset.group(rows)
    with Browser(CHROMIUM, tmp_path / "profile") as browser:
        browser.open(dataset.folder / "group.html")
        yield browser
        assert not browser.faults
        assert all(address.startswith("file:") for address in browser.requests)


def choose(page, value):
    page.run(f"const s = document.querySelector('#show'); s.value = '{value}'; "
             "s.dispatchEvent(new Event('change')); 0")  # fmt: skip


def click(page, selector, nth=0):
    page.run(f"document.querySelectorAll({selector!r})[{nth}].click()")


def test_a_page_of_results_is_shown_and_the_next_one_on_demand(page):
    assert page.run(PEOPLE)[:3] == ["sub-008", "sub-007", "sub-000"]
    assert len(page.run(PEOPLE)) == 100
    click(page, ".pages button", 1)
    click(page, ".pages button", 1)
    assert len(page.run(PEOPLE)) == 50
    assert page.run("document.querySelectorAll('.pages button')[1].disabled")


def test_a_head_sorts_all_results_with_the_keyboard_too(page):
    heads = "[...document.querySelectorAll('.results thead button')]"
    head = f"{heads}.find((b) => b.textContent == 'Pons (ml)')"
    page.run(f"{head}.focus()")
    page.press("Enter")
    assert page.run(PEOPLE)[0] == "sub-007"
    assert page.run(f"{head}.parentElement.ariaSort") == "ascending"
    page.press("Enter")
    assert page.run(PEOPLE)[0] == "sub-027"


def test_results_are_found_by_text_and_by_flag(page):
    page.run("const f = document.querySelector('#find'); f.value = 'SUB-24'; "
             "f.dispatchEvent(new Event('input')); 0")  # fmt: skip
    page.wait_for("document.querySelector('#count').textContent.startsWith('10 of 249')")
    page.run("f.value = ''; 0")
    choose(page, "flag:fragmented")
    assert page.run(PEOPLE) == ["sub-007"]


def test_ratings_are_exported_and_come_back_on_import(page, dataset):
    click(page, ".results .fail", 0)  # sub-007, as what failed has no buttons
    click(page, ".results .pass", 1)
    choose(page, "fail")
    assert page.run(PEOPLE) == ["sub-007"]
    page.run("""
        URL.createObjectURL = (blob) => { window.saved = blob; return "blob:x"; };
        HTMLAnchorElement.prototype.click = function () { window.name_ = this.download; };
        document.querySelector("#export").click();
    """)
    assert page.run("name_") == "group_ratings.tsv"
    lines = page.run("saved.text()").splitlines()
    assert lines[0].split("\t")[2:] == ["source", "model", "model_version", "rating"]
    assert [line.split("\t")[-1] for line in lines[1:]] == ["fail", "pass"]
    click(page, ".results .fail", 0)  # takes the rating back
    page.run("""
        const input = document.querySelector("#import");
        const list = new DataTransfer();
        list.items.add(new File([saved], "group_ratings.tsv"));
        input.files = list.files;
        input.dispatchEvent(new Event("change"));
    """)
    page.wait_for("document.querySelector('#count').textContent.includes('Imported 2 of 2')")
    assert page.run(PEOPLE) == ["sub-007"]
    page.open(dataset.folder / "group.html")
    assert "rated 1 pass, 1 fail" in page.run("document.querySelector('#count').textContent")


def test_a_failed_image_is_no_result_and_cannot_be_rated(page):
    count = "document.querySelector('#count').textContent"
    assert page.run(count).startswith("249 of 249 results, 1 failed; rated 0 pass")
    first = "document.querySelector('.results tbody tr')"
    assert page.run(f"{first}.querySelectorAll('button').length") == 0
    choose(page, "unrated")
    assert page.run(count).startswith("249 of 249 results; rated")
    assert page.run(PEOPLE)[0] == "sub-007"


def test_hostile_text_is_shown_as_text(page):
    assert EVIL in page.run(PEOPLE)
    assert not page.run("document.querySelectorAll('img').length")
