"""The page of a dataset: what to look at first, and every result."""

import base64
import hashlib
import json
import re

import pytest

from bids_app.bids.columns import LONGITUDINAL
from bids_app.measures.flags import FLAGS
from bids_app.reports import group

REGIONS = ("midbrain", "pons", "medulla", "brainstem")


def row(participant="sub-01", session="n/a", flags="n/a", scale=1.0, **others):
    volumes = zip(REGIONS, (9000, 15000, 5000, 29000), strict=True)
    folder = participant if session == "n/a" else f"{participant}/{session}"
    return {
        "participant_id": participant,
        "session_id": session,
        "model": "open",
        "model_version": "1.0.0",
        "source": f"{folder}/anat/{folder.replace('/', '_')}_T1w.nii.gz",
        "flags": flags,
        **{f"{name}_mm3": f"{mm3 * scale:.3f}" for name, mm3 in volumes},
    } | others


def cells(page):
    """Texts of the cells of the last table, by row."""
    body = page.source.rsplit("<tbody>", 1)[1]
    lines = re.findall(r"<tr.*?</tr>", body, re.DOTALL)
    return [[re.sub("<[^>]*>", "", c) for c in re.findall(r"<t[hd].*?</t[hd]>", r)] for r in lines]


def data(page):
    """What the page's script shows."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page.source, re.DOTALL)[1])


def test_volumes_are_drawn_in_millilitres(dataset):
    page = dataset.group([row(f"sub-{i}", scale=1 + i / 100) for i in range(9)])
    ticks = [float(text) for text in re.findall(r">([\d.]+)</text>", page.source)]
    assert 5 <= min(ticks) < max(ticks) < 40


def test_rows_without_a_site_are_not_drawn_by_site(dataset):
    rows = [row("sub-1", batch="Basel"), row("sub-2", batch="Bern"), row("sub-3", pons_mm3="n/a")]
    rows += [row("sub-4", batch="n/a")]
    rows[0]["pons_mm3"] = rows[1]["pons_mm3"] = "n/a"
    page = dataset.group(rows)
    by_site = page.source.split("By site and scanner")[1].split("</details>")[0]
    assert by_site.count('class="plot"') == 3


def test_each_flag_is_counted_and_explained(dataset):
    page = dataset.group([row("sub-01", flags="fragmented"), row("sub-02", flags="fragmented")])
    assert FLAGS["fragmented"] in page.text
    assert "#flags" in {link["href"] for link in page.all("a")}


def test_flags_are_explained_by_the_thresholds_of_the_group_level(dataset):
    rows = [row(flags="wrong_order"), row("sub-02", flags="failed")]
    page = dataset.group(rows, thresholds={"wrong_order": 8.0})
    assert page.text.count("less than 8 mm above") == 1
    assert "less than 8 mm above" in data(page)["meanings"]["wrong_order"]
    assert "except wrong_order (8)" in page.text


def test_without_flags_there_is_no_such_section(dataset):
    assert not dataset.group([row()]).all("h2", id="flags")


def test_a_failed_image_is_listed_without_volumes(dataset):
    failed = row("sub-02", flags="failed") | {f"{name}_mm3": "n/a" for name in REGIONS}
    page = dataset.group([row(), failed | {"failure": "truncated"}])
    assert "n/a" in cells(page)[0]
    assert ", model open: truncated" in page.text
    assert page.all("svg", **{"class": "plot"})


def test_a_table_of_failures_alone_has_no_plots(dataset):
    failed = row(flags="failed") | {f"{name}_mm3": "n/a" for name in REGIONS}
    assert not dataset.group([failed]).all("svg", **{"class": "plot"})


def test_an_image_without_brainstem_is_listed_but_not_drawn(dataset):
    page = dataset.group([row(), row("sub-02", flags="no_brainstem,low_self_consistency", scale=0)])
    assert cells(page)[0][3:9] == ["open", "1.0.0", *["0.00"] * 4]
    assert page.source.count("h0") == len(REGIONS)  # a dot each


def test_sessions_and_models_are_drawn_apart_while_they_are_few(dataset):
    few = dataset.group([row(session="ses-1"), row(session="ses-2"), row(model="mars")])
    assert "open 1.0.0 ses-2" in few.text
    assert "mars 1.0.0 no session" in few.text
    many = dataset.group([row(session=f"ses-{i}") for i in range(40)])
    assert "open 1.0.0 ses-2" not in many.text


def test_only_the_script_of_the_page_may_run(dataset):
    page = dataset.group([row()])
    script = re.search(r"<script>(.*?)</script>", page.source, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert f"script-src 'sha256-{digest}'" in policy
    assert [script.get("type") for script in page.all("script")] == ["application/json", None]
    assert not any(key.startswith("on") for _, found in page.elements for key in found)


def test_hostile_text_is_shown_as_text(dataset):
    evil = "<script>alert(1)</script>\"'><svg onload=alert(1)>\u202e"
    names = ("participant_id", "session_id", "model", "flags", "voxel_size_mm")
    page = dataset.group([row() | dict.fromkeys(names, evil)])
    assert len(page.all("script")) == 2
    assert not any("onload" in found for _, found in page.elements)
    assert page.text.count("<script>alert(1)</script>") >= 4


def test_the_same_table_gives_the_same_bytes(dataset):
    rows = [row(f"sub-{i:02d}", scale=1 + i / 50) for i in range(20)]
    assert dataset.group(rows).source == dataset.group(rows).source


def test_a_selection_says_what_is_left_out(dataset):
    page = dataset.group([row()], left_out=41)
    assert "41 results of this folder were not asked for" in page.text


def change(**others):
    """A row of the table of changes, from ses-1 to ses-2 of sub-01."""
    first, later = (row(session=f"ses-{n}")["source"] for n in (1, 2))
    return dict.fromkeys(LONGITUDINAL, "n/a") | {
        "participant_id": "sub-01",
        "first_session_id": "ses-1",
        "session_id": "ses-2",
        "model": "open",
        "model_version": "1.0.0",
        "first_source": first,
        "source": later,
        "years": "1.420",
        "pons_change_percent": "-2.500",
        "pons_smallest_detectable_percent": "1.800",
        "noise_source": "changes",
        "beyond_noise": "pons",
        "flags": "scanner_changed",
    } | others  # fmt: skip


@pytest.mark.parametrize(
    ("source", "claim"),
    [
        ("repeats", "1 of 1 exceed the noise"),
        ("passes", "too few unflagged changes (0 participants; at least 10 per model are needed)"),
    ],
)
def test_changes_are_drawn_by_session(dataset, source, claim):
    beyond = "pons" if source == "repeats" else "n/a"
    page = dataset.group([row()], changes=[change(noise_source=source, beyond_noise=beyond)])
    assert "Pons (change in %)" in page.text
    assert "1 change from a first session, 1 with a flag" in page.text
    assert claim in page.text


@pytest.mark.parametrize("noise", ["changes", "passes"])
def test_each_change_is_listed_with_the_smallest_detectable_one(dataset, noise):
    beyond = "pons" if noise == "changes" else "n/a"
    line = change(noise_source=noise, beyond_noise=beyond, run="2")
    page = dataset.group([row()], changes=[line], reported={"sub-01"})
    shown = "sub-01ses-1 to ses-2 run-2, model open1.420n/a-2.5 (1.8)n/an/a"
    assert shown + ("pons" if noise == "changes" else "unknown") + "scanner_changed" in page.text
    assert LONGITUDINAL["noise_source"].levels[noise] in page.text
    assert "scanner_changed: site, manufacturer or" in page.text
    place = "sub-01.html#sub-01-ses-2-anat-sub-01-ses-2-T1w-nii-gz-open-1-0-0"
    assert page.all("a", href=place)
    assert "Change is the difference between" in page.text


def test_changes_beyond_noise_come_first(dataset, monkeypatch):
    monkeypatch.setattr(group, "STATIC", 1)
    lines = [change(participant_id=f"sub-{i}", beyond_noise="n/a") for i in (1, 2)]
    page = dataset.group([row()], changes=[*lines, change(participant_id="sub-3")])
    shown = page.source.split("Changes in numbers")[1].split("</details>")[0]
    assert re.findall("sub-[0-9]", shown) == ["sub-3"]


def test_models_are_compared_with_each_other(dataset):
    found = [
        {
            "participant_id": f"sub-{i}",
            "source": f"sub-{i}/anat/sub-{i}_T1w.nii.gz",
            "model": "open",
            "model_version": "1",
            "other_model": "mars",
            "name": "pons",
            "dice": f"{0.9 + i / 100:.2f}",
            "difference_percent": f"{i:.2f}",
        }
        for i in range(3)
    ]
    page = dataset.group([row()], agreement=found)
    assert "open 1 - mars" in page.text
    assert "open 1 - marspons30.9100.9001.0-1.0 to 3.0" in page.text


def test_sites_are_drawn_apart_where_there_are_several(dataset):
    page = dataset.group([row("sub-01", batch="Basel, 3"), row("sub-02", batch="Bern, 1.5")])
    assert "By site and scanner" in page.text
    assert "By site and scanner" not in dataset.group([row("sub-01", batch="Basel, 3")]).text
