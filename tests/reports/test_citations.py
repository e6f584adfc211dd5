"""What is to be cited is right for the model that was used, and for its settings."""

import json
import re
from dataclasses import replace

import pytest

from bids_app.bids.results import Sidecar, model_entry
from bids_app.engines.nnunet.postprocessing import POSTPROCESSING, LargestComponent, steps_text
from bids_app.models import store
from bids_app.reports.citations import (
    ModelUse,
    _bibliography,
    merge_uses,
    methods_paragraph,
    mixed_settings,
    write_citations,
)
from bids_app.reports.page import resource
from bids_app.workflow.write import Context

NNUNET, MDGRU = "10.1038/s41592-020-01008-z", "10.1007/978-3-319-46976-8_15"
MDGRU_CODE = "10.1007/978-3-319-75238-9_3"
NNUNET_TEXT = f"Isensee et al. 2021, https://doi.org/{NNUNET}"
MARS = "10.1002/hbm.70141"


def use_of(label, sidecar):
    return ModelUse.from_sidecar(label, Sidecar.model_validate(sidecar))


def registered(name):
    """Describe a registered model as its sidecars would."""
    entry = store.registry()[name]
    reference = f"{entry['citation']} https://doi.org/{entry['doi']}"
    model = {"Name": name, "Version": "1", "Engine": entry["engine"],
             "License": entry["licence"], "Citation": reference}  # fmt: skip
    settings = {"Folds": "all", "Mirroring": True, "Region": False}
    return use_of(entry["label"], {"Model": model, "Settings": settings})


@pytest.fixture
def open_model():
    model = store.find("open")
    return use_of(
        model.label,
        {"Model": model_entry(model), "SoftwareVersions": "bids_app 9.8.7, torch 2.13.0+cpu"},
    )


def test_the_open_model_is_cited_with_the_data_it_was_made_from(open_model, tmp_path):
    text = methods_paragraph(open_model)
    for words in ("bids_app", "9.8.7 (torch 2.13.0+cpu)", "CC-BY-4.0", "two nnU-Net networks"):
        assert (words in text) is (words != "bids_app")
    assert "developers, 2026)" in text
    write_citations(tmp_path, [open_model])
    bib = (tmp_path / "CITATION.bib").read_text()
    dois = set(re.findall(r"doi = \{(.*)\}", bib))
    assert {NNUNET, "10.1016/j.media.2023.102789", "10.1002/cne.24080"} <= dois
    assert "@misc{model_open1" in bib
    assert not {MDGRU, MARS} & dois


@pytest.mark.parametrize(
    ("name", "method", "other"), [("mars-nnunet", NNUNET, MDGRU), ("mars-mdgru", MDGRU, NNUNET)]
)
def test_the_published_models_are_cited_by_their_paper_and_their_own_method(
    name, method, other, tmp_path
):
    used = registered(name)
    text = methods_paragraph(used)
    assert method in text
    assert other not in text
    assert "Gesierich B, Sander L, et al. 2025)" in text
    assert ("mirror" in text) is (name == "mars-nnunet")
    write_citations(tmp_path, [used])
    for file in ("CITATION.md", "CITATION.bib"):
        content = (tmp_path / file).read_text()
        assert MARS in content
        assert method in content
        assert other not in content
    assert "@misc" not in (tmp_path / "CITATION.bib").read_text()


def test_results_of_one_model_made_in_two_ways_have_two_texts(open_model, tmp_path):
    mirrored, plain = (replace(open_model, settings={"Mirroring": m}) for m in (True, False))
    write_citations(tmp_path, [mirrored, plain, mirrored])
    page = (tmp_path / "CITATION.md").read_text()
    assert "Results of this model were made in 2 ways:" in page
    assert page.count("Midbrain, pons and medulla oblongata were segmented") == 2
    assert page.count("mirror images were averaged") == page.count("- nnU-Net: ") == 1


def test_mixed_settings_are_counted(open_model):
    mirrored, plain = (
        replace(open_model, settings={"Folds": ["0", "1"], "Mirroring": m}) for m in (True, False)
    )
    assert mixed_settings([mirrored, mirrored, registered("mars-mdgru")]) == []
    assert mixed_settings([mirrored, plain, mirrored]) == [
        f"open {store.find('open').version}: Mirroring no 1, yes 2"
    ]


def test_settings_that_change_a_result_are_in_the_text():
    model = {"Name": "mine", "Engine": "nnunet", "Citation": "Me, 2026"}
    settings = {"Folds": ["0", "3"], "Mirroring": False, "Region": True}
    text = methods_paragraph(use_of("mine", {"Model": model, "Settings": settings}))
    assert "Of its networks, those of fold 0, 3 were used" in text
    assert "mirror images were averaged" not in text
    assert "only the part of the image around the brainstem." in text


@pytest.mark.parametrize("name", ["mars-nnunet", "mars-mdgru"])
def test_the_model_that_located_the_brainstem_is_named_and_cited(name, tmp_path):
    model = replace(
        store.find("open"), name=name, label="x", engine=store.registry()[name]["engine"]
    )
    shown = {region: Context(model, {"Region": region}, False).models for region in (True, False)}
    assert set(shown[False]) == {"Model"}
    locator = store.find("open")
    settings = {"Settings": {"Region": True}}
    write_citations(tmp_path, [use_of("x", shown[True] | settings)])
    page, bib = ((tmp_path / f"CITATION.{ending}").read_text() for ending in ("md", "bib"))
    assert (
        f"around the brainstem, which the first network of the model open (version "
        f"{locator.version}, licence CC-BY-4.0; The brainstem BIDS App developers, 2026) located."
    ) in page
    assert page.count(f"- {locator.reference}\n") == 1
    assert page.count(f"- nnU-Net: {NNUNET_TEXT}") == 1
    assert "@misc{model_open1" in bib
    assert NNUNET in bib


def test_the_number_of_networks_and_the_arithmetic_of_version_1_are_in_the_text():
    def text(settings, **model):
        entry = {"Name": "mine", "Engine": "nnunet", "Citation": "Me, 2026"} | model
        return methods_paragraph(use_of("mine", {"Model": entry, "Settings": settings}))

    assert "2026): an nnU-Net (Isensee" in text({"Folds": "all"})
    one = text({"Folds": "all"}, Networks=1, Mode="v2")
    assert "2026): an nnU-Net (Isensee" in one
    assert "arithmetic" not in one
    two = text({"Folds": "all"}, Networks=2, Mode="v1")
    assert f"an ensemble of 2 nnU-Nets ({NNUNET_TEXT}), run with the arithmetic of nnU-Net " in two
    some = text({"Folds": ["0", "3"]}, Networks=5)
    assert "an ensemble of 2 nnU-Nets (" in some
    assert "Of the model's 5 networks, those of fold 0, 3 were used." in some


def test_the_text_names_the_regions_of_the_model():
    def text(**model):
        return methods_paragraph(use_of("mine", {"Model": {"Engine": "nnunet"} | model}))

    assert text().startswith("Midbrain, pons and medulla oblongata were segmented on")
    assert text(Regions=["pons", "spinal_cord"]).startswith("Pons and spinal cord were segmented")
    assert text(Regions=["brainstem"]).startswith("Brainstem was segmented on")


def test_postprocessing_and_missing_mirroring_are_in_the_text():
    def text(mirroring, **model):
        entry = {"Model": {"Engine": "nnunet"} | model, "Settings": {"Mirroring": mirroring}}
        return methods_paragraph(use_of("mine", entry))

    assert "on mirror images (test-time augmentation) were left out." in text(mirroring=False)
    assert "left out" not in text(mirroring=True)
    assert "left out" not in text(Engine="mdgru", mirroring=False)
    assert "Small components" not in text(mirroring=True)
    steps = [["midbrain", "pons", "medulla"], ["pons"]]
    assert (
        "Small components apart from the largest one were removed, of midbrain, pons and medulla "
        "oblongata together; pons."
    ) in text(LargestComponent=steps, mirroring=True)


def test_the_entry_of_a_model_has_its_postprocessing(tmp_path):
    steps = [LargestComponent((1, 2, 3)), LargestComponent((2,), spare_mm3=20)]
    (tmp_path / POSTPROCESSING).write_text(steps_text(steps))
    model = replace(store.find("open"), engine="nnunet", folder=tmp_path)
    assert model_entry(model)["LargestComponent"] == [["midbrain", "pons", "medulla"], ["pons"]]
    assert "LargestComponent" not in model_entry(replace(model, folder=tmp_path / "none"))


def test_the_intracranial_volume_is_mentioned_only_if_it_was_estimated():
    model = {"Name": "open", "Engine": "cascade", "Citation": "We, 2026"}

    def used(*keys, engine="cascade"):
        quality = dict.fromkeys(keys, 1.5e6)
        return use_of("open1", {"Model": model | {"Engine": engine}, "Quality": quality})

    assert "eTIV" in methods_paragraph(used("etiv_mm3"))
    assert "eTIV" not in methods_paragraph(used("midbrain_pons_height_mm"))
    assert "eTIV" not in methods_paragraph(registered("mars-nnunet"))
    [both] = merge_uses([used("etiv_mm3"), used("midbrain_pons_height_mm")])
    assert both.etiv
    assert len(merge_uses([used("etiv_mm3"), used(engine="nnunet")])) == 2


def test_thresholds_that_differ_from_the_defaults_are_in_the_text():
    def text(**thresholds):
        return methods_paragraph(use_of("x", {"Model": {"Engine": "nnunet"},
                                                   "FlagThresholds": thresholds}))  # fmt: skip

    assert "need no ground truth, with the app's default thresholds." in text(wrong_order=5)
    assert "the app's default thresholds except low_resolution (3), wrong_order (8)." in text(
        wrong_order=8, low_resolution=3.0
    )


def test_the_group_level_replaces_its_own_section(open_model, tmp_path):
    write_citations(tmp_path, sentences={"flags": "Five had a flag.", "adjusted": "Adjusted."})
    write_citations(tmp_path, [open_model])
    page = (tmp_path / "CITATION.md").read_text()
    assert re.findall("## (.*)", page) == ["Model open1", "Group level"]
    assert "Five had a flag. Adjusted.\n\nPlease cite:\n\n- Residual method: Sanfilipo" in page
    assert "10.1016/j.neuroimage.2004.03.037" in (tmp_path / "CITATION.bib").read_text()
    write_citations(tmp_path, sentences={"flags": "Six had a flag."})
    page = (tmp_path / "CITATION.md").read_text()
    assert page.endswith("## Group level\n\nSix had a flag.\n")
    assert "Sanfilipo" not in page
    assert NNUNET in (tmp_path / "CITATION.bib").read_text()


def test_lone_surrogates_do_not_end_the_files(open_model, tmp_path):
    odd = replace(open_model, settings={"Folds": ["\ud800"]}, reference="Me \udcff, 2026")
    write_citations(tmp_path, [odd], {"flags": "\ud800"})
    for name in ("CITATION.md", "CITATION.bib", "citations.json"):
        assert "Me ?, 2026" in (tmp_path / name).read_text()


def test_the_record_is_json_and_a_damaged_one_is_replaced(open_model, tmp_path):
    write_citations(tmp_path, [open_model])
    record = json.loads((tmp_path / "citations.json").read_text())
    assert record["models"]["open1"]["paragraphs"] == [methods_paragraph(open_model)]
    for damaged in ("", "{", '{"models": 3}'):
        (tmp_path / "citations.json").write_text(damaged)
        write_citations(tmp_path, [open_model])
        assert json.loads((tmp_path / "citations.json").read_text()) == record


def test_every_reference_of_the_package_has_an_entry():
    text = resource("references.bib")
    keys = {key for key, _ in _bibliography().values()}
    assert text.count("@") == len(keys) == 9
    assert all(entry.count("{") == entry.count("}") for _, entry in _bibliography().values())


def test_models_used_earlier_stay_and_a_newer_version_takes_the_place_of_its_label(
    open_model, tmp_path
):
    write_citations(tmp_path, [registered("mars-mdgru")])
    write_citations(tmp_path, [open_model])
    before = (tmp_path / "CITATION.md").read_text()
    assert re.findall(r"## Model (\w+)", before) == ["marsmdgru", "open1"]
    write_citations(tmp_path, [open_model])
    assert (tmp_path / "CITATION.md").read_text() == before
    bib = (tmp_path / "CITATION.bib").read_text()
    assert MDGRU in bib
    assert MDGRU_CODE in bib


def test_a_citation_of_a_users_model_breaks_no_bibliography(tmp_path):
    model = {"Name": "x", "Engine": "nnunet", "Citation": "A & B {50%} \\input{x} #1_2 $y ~^"}
    write_citations(tmp_path, [use_of("x1", {"Model": model})])
    bib = (tmp_path / "CITATION.bib").read_text()
    assert r"note = {A \& B 50\% inputx \#1\_2 \$y }" in bib
    assert bib.count("{") == bib.count("}")


@pytest.mark.parametrize("sidecar", [{}, {"Model": {"Engine": "?"}}])
def test_an_odd_sidecar_is_cited_as_far_as_it_goes(sidecar, tmp_path):
    used = use_of("odd", sidecar)
    assert used.engine == ""
    write_citations(tmp_path, [used])
    assert "## Model odd" in (tmp_path / "CITATION.md").read_text()


def test_text_with_half_a_surrogate_pair_can_be_written(tmp_path):
    use = ModelUse.from_sidecar("x", Sidecar.model_validate({"Model": {"Name": "\ud800"}}))
    write_citations(tmp_path, [use])
    assert "Model x" in (tmp_path / "CITATION.md").read_text(encoding="utf-8")
