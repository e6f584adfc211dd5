"""A participant's page: everything about each result, in one harmless file."""

import base64
import hashlib
import json
import re
from importlib.resources import files

from bids_app.io.tables import table
from bids_app.measures.flags import FLAGS
from bids_app.reports.images.cutout import cut_out
from bids_app.reports.page import niivue

from .test_group import row

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;\u202eevil" + "x" * 3000


def test_a_result_is_shown_in_full(dataset):
    page = dataset.add().participant()
    for words in ("sub-01", "Test", "1 result, none flagged", "sub-01/anat/sub-01_T1w.nii.gz",
                  "9.00", "15.00", "5.00", "29.00", "9,000", "51.7", "1, 1, 1.2", "1,500,000",
                  "eTIV (mm³)", "ab" * 32, "cd" * 32, "CC0", "torch 2.13.0", "Mirroring yes",
                  "sub-01_seg-open1_dseg.nii.gz", "not a medical device"):  # fmt: skip
        assert words in page.text


def test_the_picture_is_inside_with_a_text_that_stands_for_it(dataset):
    dataset.add()
    stored = (dataset.folder / "sub-01/figures/sub-01_seg-open1_dseg.png").read_bytes()
    (picture,) = dataset.participant().all("img")
    kind, data = picture["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == stored
    for words in ("sub-01/anat/sub-01_T1w.nii.gz", "midbrain (9.00 ml)", "medulla (5.00 ml)"):
        assert words in picture["alt"]


def test_sessions_runs_and_models_have_a_section_each_and_an_overview(dataset):
    for image in ("sub-01_ses-1_run-1", "sub-01_ses-1_run-2", "sub-01_ses-2_acq-fast"):
        dataset.add(image).add(image, "mars")
    dataset.add("sub-02")
    page = dataset.participant()
    titles = [page.text.count(title) for title in ("ses-1 run-2, model mars", "ses-2 acq-fast, m")]
    assert titles == [2, 4]  # in the overview and at the section
    assert len(page.all("img")) == 6
    targets = {link["href"] for link in page.all("a") if link["href"].startswith("#")}
    identifiers = {f"#{found['id']}" for _, found in page.elements if "id" in found}
    assert targets <= identifiers
    assert len(page.all("h2")) == len({found["id"] for found in page.all("h2")}) == 7


def test_flags_are_explained_and_stand_before_the_picture(dataset):
    page = dataset.add(
        Flags=["out_of_view", "new_flag"], Warnings=["voxels were NaN"]
    ).participant()
    assert "1 result, 1 flagged" in page.text
    picture = page.source.index("<img")
    for words in (FLAGS["out_of_view"], "new_flag", "voxels were NaN"):
        assert page.source.index(words) < picture


def test_a_result_without_flags_has_no_notice(dataset):
    assert not dataset.add().participant().all("div", **{"class": "notice"})


def test_the_methods_text_and_the_citation_link_their_dois(dataset):
    page = dataset.add().participant()
    links = {link["href"] for link in page.all("a")}
    assert "https://doi.org/10.1000/xyz" in links
    assert "https://doi.org/10.1038/s41592-020-01008-z" in links
    assert "Midbrain, pons and medulla oblongata were segmented" in page.text


def test_two_results_of_one_model_have_one_methods_text(dataset):
    page = dataset.add("sub-01_ses-1").add("sub-01_ses-2").participant()
    assert page.text.count("were segmented") == 1


def test_a_model_of_ones_own_is_cited_too(dataset):
    page = dataset.add(Model={"Name": "mine", "Citation": "Me, 2026"}).participant()
    assert "Me, 2026" in page.text


def test_the_page_asks_nothing_of_any_network(dataset):
    page = dataset.add().participant()
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy.startswith("default-src 'none'; img-src data:")
    assert "unsafe" not in policy
    style = re.search(r"<style>(.*?)</style>", page.source, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert not page.all("script")
    assert all(found["src"].startswith("data:") for _, found in page.elements if "src" in found)
    assert "url(" not in style


def test_the_page_can_be_used_by_keyboard_and_read_aloud(dataset):
    page = dataset.add("sub-01_ses-1").add("sub-01_ses-2").participant()
    assert page.all("html", lang="en")
    assert page.all("a", **{"class": "skip", "href": "#main"})
    assert page.all("main", id="main")
    assert len(page.all("h1")) == 1
    assert all(head.get("scope") in ("row", "col") for head in page.all("th"))
    assert all(box["tabindex"] == "0" for box in page.all("div", **{"class": "scroll"}))


def test_hostile_text_is_shown_as_text(tmp_path, dataset):
    sidecar = dict.fromkeys(("InputSHA256", "Device", "SoftwareVersions"), HOSTILE)
    dataset = type(dataset)(tmp_path / "evil", HOSTILE)
    names = ("Name", "Version", "SHA256", "License", "Citation")
    page = dataset.add(
        **sidecar,
        Sources=[HOSTILE],
        Model=dict.fromkeys(names, HOSTILE),
        Settings={HOSTILE: HOSTILE},
        Quality={HOSTILE: 1.0},
        Flags=[HOSTILE],
        Warnings=[HOSTILE],
    ).participant()
    assert not page.all("script")
    assert len(page.all("img")) == 1
    assert not any("onerror" in found for _, found in page.elements)
    assert page.text.count("<script>alert(1)</script>") >= 10
    # Right-to-left marks do not reach beyond the text that holds them.
    for before in re.findall(r"<(\w+)>[^<]*\u202e", page.source.split("<body>")[1]):
        assert before in ("bdi", "li", "p", "dd")


def test_an_empty_map_is_reported_as_nothing_found(dataset):
    page = dataset.add(volumes={"midbrain": 0.0, "pons": 0.0, "medulla": 0.0}).participant()
    assert page.text.count("0.00") >= 4
    assert "n/a" in page.text


def test_what_a_running_run_has_taken_away_is_passed_over(dataset):
    dataset.add()
    (dataset.folder / "sub-01/figures/sub-01_seg-open1_dseg.png").unlink()
    assert "picture of this result is missing" in dataset.participant().text
    (dataset.folder / "sub-01/anat/sub-01_seg-open1_volumes.tsv").unlink()
    assert "No image is complete yet" in dataset.participant().text


def test_a_participant_without_results_has_a_page_that_says_so(dataset):
    assert "No image is complete yet" in dataset.participant("sub-99").text


def test_the_same_results_give_the_same_bytes(dataset):
    assert dataset.add().participant().source == dataset.participant().source


def test_images_that_failed_are_named_with_the_reason(dataset):
    dataset.add().fail("sub-01_run-2", "truncated <gzip>").fail("sub-02", "it is constant")
    dataset.fail("sub-01", "no room")  # and was done by a later run
    page = dataset.participant()
    assert "1 result, none flagged, 1 failed." in page.text
    assert "sub-01/anat/sub-01_run-2_T1w.nii.gz, model open: truncated <gzip>" in page.text
    assert "no room" not in page.text
    assert "it is constant" not in page.text
    alone = dataset.participant("sub-02")
    assert "sub-02/anat/sub-02_T1w.nii.gz, model open: it is constant" in alone.text
    assert "No image is complete yet" in alone.text


def test_the_page_does_not_depend_on_the_group_level(dataset):
    before = dataset.add().participant().source
    dataset.group([row(flags="outlier")])
    (dataset.folder / "group_volumes.tsv").write_text("model\tflags\nopen\toutlier\n")
    assert dataset.participant().source == before
    assert "All participants (after the group level)" in before


def test_thresholds_that_the_user_asks_for_win_over_those_of_the_run(dataset):
    dataset.add(
        Quality={"midbrain_pons_height_mm": 6.0, "pons_soft_dice": 0.9},
        Flags=["out_of_view", "new_flag", "wrong_order"],
        FlagThresholds={"wrong_order": 8.0},
    )
    assert "wrong_order: " in dataset.participant().text
    page = dataset.participant(thresholds={"wrong_order": 5.0, "low_confidence": 0.95})
    for words in ("out_of_view", "new_flag", "low_confidence: ", "at least 0.95"):
        assert words in page.text
    assert "wrong_order" not in page.text
    assert "except low_confidence (0.95), wrong_order (5)" not in page.text
    assert "default thresholds except low_confidence (0.95)." in page.text


def test_a_cut_out_brings_a_viewer_and_lets_no_other_code_run(dataset, head):
    dataset.add()
    (dataset.folder / "sub-01/figures/sub-01_seg-open1_cutout.nii.gz").write_bytes(cut_out(*head))
    page = dataset.participant()
    data = {found["id"]: found for found in page.all("script", type="application/gzip")}
    [place] = page.all("div", **{"class": "viewer"})
    assert place["data-volume"] in data
    assert "viewer-library" in data
    assert [r["color"] for r in json.loads(place["data-regions"])] == [
        "#E69F00", "#56B4E9", "#009E73",
    ]  # fmt: skip
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    digests = policy.split("script-src ")[1].split("; ")[0].split()
    assert len(digests) == 2
    assert all(digest.startswith("'sha256-") for digest in digests)
    assert "needs JavaScript" in page.text
    assert len(page.source) < 1_500_000


def test_the_shipped_viewer_library_is_the_published_one():
    readme = (files("bids_app.reports") / "niivue" / "README.md").read_text()
    published = re.search(r"([\d,]+) bytes, SHA-256 `(\w+)`", readme)
    code = niivue().encode()
    assert len(code) == int(published[1].replace(",", ""))
    assert hashlib.sha256(code).hexdigest() == published[2]


def test_agreement_of_models_is_shown_per_image_as_text(dataset):
    dataset.add().add(model="mars")
    head = ["model", "model_version", "other_model", "name", "dice", "difference_percent"]
    rows = [
        [HOSTILE, "1.3.0", "mars", "pons", "0.9312", "-4.26"],
        [HOSTILE, "1.3.0", "mars", "medulla", "n/a", "n/a"],
    ]
    place = dataset.folder / "sub-01" / "anat" / "sub-01_comparison.tsv"
    assert "Agreement of models" not in dataset.participant().text
    place.write_bytes(table(head, rows))
    page = dataset.participant()
    assert "Agreement of models" in page.text
    assert "0.931 (-4.3 %)" in page.text
    assert len(page.all("script")) == 0


def test_lone_surrogates_do_not_end_a_page(tmp_path, dataset):
    half = "half of a pair: \ud800"
    dataset = type(dataset)(tmp_path / "half", half)
    page = dataset.add(Settings={half: half}, Warnings=["none"]).participant()
    assert page.text.count("half of a pair: ?") == 3
    assert "half of a pair: ?" in dataset.group([row(voxel_size_mm=half)]).source
