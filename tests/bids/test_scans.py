"""Finding the images of a dataset, and saying why one is left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import t1w_entities, t1w_path

from bids_app.bids import query as layout
from bids_app.bids.labels import SUFFIXES
from bids_app.bids.scans import Found, Kinds, find_scans, read_entities
from bids_app.errors import DatasetError, NoScanError, OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = "sub-01/anat/sub-01_T1w.nii.gz"


def dataset(root: Path, *names: str) -> Path:
    """Write a dataset of empty files; finding opens none of them."""
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return root


def names(found: Found) -> list[str]:
    return [scan.relative for scan in found.scans]


@given(t1w_entities(), st.sampled_from([".nii", ".nii.gz"]))
def test_entities_come_back_as_written(entities: Any, extension: str) -> None:
    assert read_entities(t1w_path(entities, extension)) == entities


def test_every_image_of_a_session_is_a_scan_of_its_own(tmp_path: Path) -> None:
    root = dataset(
        tmp_path,
        "sub-01/ses-pre/anat/sub-01_ses-pre_T1w.nii.gz",
        "sub-01/ses-pre/anat/sub-01_ses-pre_acq-fast_rec-norm_run-01_T1w.nii.gz",
        "sub-01/ses-pre/anat/sub-01_ses-pre_T2w.nii.gz",
        "sub-01/ses-pre/anat/sub-01_ses-pre_T1w.json",
        "sub-02/anat/sub-02_T1w.nii",
    )
    plain, fast, flat = find_scans(root).scans
    assert fast.entities == (
        ("sub", "01"), ("ses", "pre"), ("acq", "fast"), ("rec", "norm"), ("run", "01"),
    )  # fmt: skip
    assert (plain.participant, plain.session) == ("sub-01", "ses-pre")
    assert (flat.participant, flat.session) == ("sub-02", None)
    assert flat.path == root / flat.relative


def test_real_datasets_are_found(valid_dataset: Path) -> None:
    found = find_scans(valid_dataset)
    assert names(found) == [
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz",
        "sub-02/ses-2/anat/sub-02_ses-2_T1w.nii.gz",
    ]
    assert found.left_out == ()


@pytest.mark.parametrize(("name", "count"), [("ds011", 8), ("ds002748", 18), ("pumi", 1)])
def test_shared_datasets_are_found(shared_data: Path, name: str, count: int) -> None:
    assert len(find_scans(shared_data / name).scans) == count


@pytest.mark.parametrize("label", ["01", "sub-01"])
def test_a_participant_is_not_taken_for_one_whose_label_begins_alike(
    tmp_path: Path, label: str
) -> None:
    root = dataset(tmp_path, HEAD, "sub-010/anat/sub-010_T1w.nii.gz")
    found = find_scans(root, participants=[label])
    assert names(found) == [HEAD]
    assert found.left_out == ()


def test_only_the_folders_asked_for_are_looked_at(tmp_path: Path) -> None:
    root = dataset(tmp_path, HEAD, "sub-02/anat/sub-02_T1w.nii.gz")
    indexed = layout.index_images(root, ["sub-01"], ["sub-01", "sub-02"], None).layout
    assert indexed.get(return_type="filename") == [str(root / HEAD)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sub-01+A/anat/sub-01+A_T1w.nii.gz", {"participants": ["01+A"]}),
        ("sub-01/ses-a+b/anat/sub-01_ses-a+b_T1w.nii.gz", {"sessions": ["a+b"]}),
        ("sub-+/ses-+/anat/sub-+_ses-+_acq-a+_T1w.nii.gz", {"participants": ["sub-+"]}),
    ],
)
def test_labels_may_hold_a_plus_sign(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    root = dataset(tmp_path, name, "sub-01/anat/sub-01_T1w.nii.gz")
    assert name in names(find_scans(root))
    assert names(find_scans(root, **options)) == [name]


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        (["sub-a/anat/sub-a_T1w.nii", "sub-A/anat/sub-A_T1w.nii"], [("sub-A", "sub-a")]),
        (
            ["sub-1/ses-x/anat/sub-1_ses-x_T1w.nii", "sub-1/ses-X/anat/sub-1_ses-X_T1w.nii"],
            [("sub-1/ses-X", "sub-1/ses-x")],
        ),
        (
            ["sub-1/anat/sub-1_acq-b_T1w.nii", "sub-1/anat/sub-1_acq-B_T1w.nii"],
            [("sub-1/anat/sub-1_acq-B_T1w.nii", "sub-1/anat/sub-1_acq-b_T1w.nii")],
        ),
        (["sub-1/anat/sub-1_T1w.nii", "sub-2/anat/sub-2_T1w.nii"], []),
    ],
)
def test_labels_that_differ_in_case_only_are_listed(
    tmp_path: Path, others: list[str], expected: list[tuple[str, ...]]
) -> None:
    found = find_scans(dataset(tmp_path, HEAD, *others))
    assert len(found.scans) == 3
    assert list(found.same_but_case) == expected


CONTRASTS = [f"sub-01/anat/sub-01_{suffix}.nii.gz" for suffix in SUFFIXES]


@pytest.mark.parametrize("suffixes", [["T2w"], ["FLAIR", "T1w"], ["UNIT1", "PDw", "T2starw"]])
def test_images_of_the_suffixes_asked_for_are_found(tmp_path: Path, suffixes: list[str]) -> None:
    root = dataset(tmp_path, *CONTRASTS, "sub-01/anat/sub-01_inv-1_MP2RAGE.nii.gz")
    found = find_scans(root, kinds=Kinds(tuple(suffixes)))
    assert [scan.suffix for scan in found.scans] == sorted(suffixes)
    assert found.left_out == ()


@pytest.mark.parametrize(
    ("there", "suffixes", "reason"),
    [
        (["UNIT1"], ["T1w"], "no T1w image; UNIT1 found; add --suffix UNIT1"),
        (
            ["FLAIR", "T2w"],
            ["T1w"],
            "no T1w image; T2w and FLAIR found; add --suffix T2w FLAIR",
        ),
        (["T1w"], ["T2w", "FLAIR"], "no T2w or FLAIR image; T1w found; add --suffix T1w"),
        (["bold"], ["T1w"], "no T1w image matches"),
    ],
)
def test_without_an_image_of_that_kind_the_reason_says_which_are_there(
    tmp_path: Path, there: list[str], suffixes: list[str], reason: str
) -> None:
    root = dataset(tmp_path, *(f"sub-01/anat/sub-01_{suffix}.nii.gz" for suffix in there))
    with pytest.raises(NoScanError, match=rf" sub-01: {reason}\.$"):
        find_scans(root, kinds=Kinds(tuple(suffixes)))
    dataset(tmp_path, f"sub-02/anat/sub-02_{suffixes[0]}.nii")
    assert find_scans(root, kinds=Kinds(tuple(suffixes))).left_out == (("sub-01", reason),)


def test_a_filter_file_has_a_key_for_each_suffix(tmp_path: Path) -> None:
    root = dataset(tmp_path, *CONTRASTS, "sub-01/anat/sub-01_run-2_T2w.nii.gz")
    file = tmp_path / "filter.json"
    file.write_text('{"t2w": {"run": 2}, "FLAIR": {"run": 9}}')
    found = find_scans(root, filter_file=file, kinds=Kinds(("T1w", "T2w", "FLAIR")))
    assert names(found) == [HEAD, "sub-01/anat/sub-01_run-2_T2w.nii.gz"]


PREPROCESSED = (
    "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
    "sub-01/anat/sub-01_space-MNI152NLin2009cAsym_res-2_desc-preproc_T1w.nii.gz",
    "sub-01/anat/sub-01_desc-preproc_T2w.nii.gz",
    "sub-01/anat/sub-01_desc-brain_mask.nii.gz",
    "sub-01/anat/sub-01_dseg.nii.gz",
)


@pytest.mark.parametrize("suffix", ["T1w", "T2w"])
def test_preprocessed_images_are_found_by_their_description(tmp_path: Path, suffix: str) -> None:
    found = find_scans(dataset(tmp_path, *PREPROCESSED), kinds=Kinds((suffix,), ("preproc",)))
    assert names(found) == [f"sub-01/anat/sub-01_desc-preproc_{suffix}.nii.gz"]
    assert found.scans[0].entities == (("sub", "01"), ("desc", "preproc"))
    assert found.left_out == ()


@pytest.mark.parametrize(
    ("there", "kinds", "reason"),
    [
        (PREPROCESSED, Kinds(), "desc-preproc.*--desc preproc selects it"),
        (
            (HEAD,),
            Kinds(descs=("preproc",)),
            "_T1w image; T1w found; leave out --desc",
        ),
        (PREPROCESSED[2:], Kinds(descs=("preproc",)), "T2w found; add --suffix T2w"),
        (PREPROCESSED[:1], Kinds(descs=("x",)), "desc-preproc_T1w found; choose --desc preproc"),
        (
            PREPROCESSED[1:2],
            Kinds(descs=("preproc",)),
            r"it is resampled \(space-MNI152NLin2009cAsym\)",
        ),
    ],
)
def test_without_a_preprocessed_image_the_reason_says_what_is_there(
    tmp_path: Path, there: tuple[str, ...], kinds: Kinds, reason: str
) -> None:
    with pytest.raises(NoScanError, match=reason):
        find_scans(dataset(tmp_path, *there), kinds=kinds)


def test_a_filter_file_may_choose_derivatives_too(tmp_path: Path) -> None:
    root = dataset(tmp_path, *PREPROCESSED)
    file = tmp_path / "filter.json"
    file.write_text('{"t1w": {"desc": "preproc", "space": null}}')
    assert names(find_scans(root, filter_file=file)) == [PREPROCESSED[0]]


@pytest.mark.parametrize("label", ["2", "ses-2"])
def test_sessions_restrict_the_search(valid_dataset: Path, label: str) -> None:
    found = find_scans(valid_dataset, sessions=[label])
    assert names(found) == ["sub-02/ses-2/anat/sub-02_ses-2_T1w.nii.gz"]
    assert found.left_out == (("sub-01", "no T1w image matches"),)


def test_derivatives_sourcedata_and_code_are_never_entered(tmp_path: Path) -> None:
    folders = ("derivatives", "derivatives/x", "sourcedata", "code", "stimuli", ".git")
    root = dataset(tmp_path, HEAD, *(f"{folder}/{HEAD}" for folder in folders))
    assert names(find_scans(root)) == [HEAD]


def test_folders_around_the_dataset_may_look_like_bids(tmp_path: Path) -> None:
    root = dataset(tmp_path / "sub-9/ses-9/func/task-9_T1w.nii", HEAD)
    filters = tmp_path / "filter.json"
    filters.write_text('{"t1w": {"datatype": "anat", "session": null, "task": null}}')
    assert names(find_scans(root, filter_file=filters)) == [HEAD]


@pytest.mark.parametrize("name", ["a b", "Größe", "a::b", "a#b", "50%", "[1]", "~", "memory:"])
def test_any_path_may_lead_to_the_dataset(tmp_path: Path, name: str) -> None:
    assert names(find_scans(dataset(tmp_path / name, HEAD))) == [HEAD]


def test_a_relative_path_leads_to_the_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset(tmp_path / "data", HEAD)
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    (scan,) = find_scans(Path("../data")).scans
    assert scan.relative == HEAD
    assert scan.path.is_absolute()
    assert scan.path.samefile(tmp_path / "data" / HEAD)


def test_a_link_to_content_not_yet_fetched_is_a_scan(tmp_path: Path) -> None:
    root = dataset(tmp_path, "sub-01/anat/sub-01_T1w.json")
    (root / HEAD).symlink_to("../../.git/annex/objects/x/MD5E-s9--0.nii.gz")
    assert names(find_scans(root)) == [HEAD]


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    dataset(tmp_path / "there", HEAD)
    root = dataset(tmp_path / "here")
    (root / "sub-01").symlink_to(tmp_path / "there/sub-01")
    assert names(find_scans(root)) == [HEAD]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sub-01/anat/sub-01_ce-gad_T1w.nii.gz", "contrast agent (--include-ce"),
        ("sub-01/anat/sub-01_inv-1_T1w.nii.gz", "inv-"),
        ("sub-01/anat/sub-01_mod-T1w_T1w.nii.gz", "mod-"),
        ("sub-01/anat/sub-01_part-phase_T1w.nii.gz", "phase part"),
        ("sub-01/anat/sub-01_T1W.nii.gz", "ends in _T1w.nii"),
        ("sub-01/anat/sub-01_T1w.NII.GZ", "ends in _T1w.nii"),
        ("sub-01/anat/sub-01_desc-brain_T1w.nii.gz", "--desc brain selects it"),
        ("sub-01/anat/sub-01_space-MNI152NLin6Asym_T1w.nii.gz", "(space-MNI152NLin6Asym)"),
        ("sub-01/anat/sub-01_acq-a-b_T1w.nii.gz", "'acq-a-b'"),
        ("sub-01/anat/sub-01_run-one_T1w.nii.gz", "'run-one'"),
        ("sub-01/anat/sub-01_run-1_run-2_T1w.nii.gz", "'run-2'"),
        ("sub-01/anat/sub-01_brain_T1w.nii.gz", "'brain'"),
        ("sub-01/anat/sub-02_T1w.nii.gz", "belongs in sub-02/anat"),
        ("sub-01/anat/sub-01_ses-1_T1w.nii.gz", "belongs in sub-01/ses-1/anat"),
        ("sub-01/ses-1/anat/sub-01_T1w.nii.gz", "belongs in sub-01/anat"),
        ("sub-01/sub-01_T1w.nii.gz", "belongs in sub-01/anat"),
        ("sub-01/Anat/sub-01_run-2_T1w.nii.gz", "belongs in sub-01/anat"),
    ],
)
def test_images_left_out_have_a_reason(tmp_path: Path, name: str, reason: str) -> None:
    found = find_scans(dataset(tmp_path, "sub-00/anat/sub-00_T1w.nii.gz", name))
    assert names(found) == ["sub-00/anat/sub-00_T1w.nii.gz"]
    ((left_out, why),) = found.left_out
    assert left_out == name
    assert reason in why
    assert "\n" not in why


@pytest.mark.parametrize(
    ("pattern", "left_out"),
    [
        ("*_run-2_*", ["sub-01/anat/sub-01_run-2_T1w.nii.gz"]),
        ("sub-02/", ["sub-02/anat/sub-02_T1w.nii.gz"]),
        ("sub-*/anat/*\n!*_run-2*\n", [HEAD, "sub-02/anat/sub-02_T1w.nii.gz"]),
        ("derivatives/\n*_bold.nii.gz", []),
    ],
)
def test_images_that_bidsignore_lists_are_left_out(
    tmp_path: Path, pattern: str, left_out: list[str]
) -> None:
    there = [HEAD, "sub-01/anat/sub-01_run-2_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz"]
    root = dataset(tmp_path, *there)
    (root / ".bidsignore").write_text(pattern)
    found = find_scans(root)
    assert names(found) == [name for name in there if name not in left_out]
    assert dict(found.left_out) == dict.fromkeys(left_out, "the dataset's .bidsignore lists it")


def test_the_error_says_that_bidsignore_lists_the_only_image(tmp_path: Path) -> None:
    root = dataset(tmp_path, HEAD)
    (root / ".bidsignore").write_text("sub-01\n")
    with pytest.raises(NoScanError, match=r"\.bidsignore lists it"):
        find_scans(root)


def test_contrast_agents_are_let_in_on_request(tmp_path: Path) -> None:
    name = "sub-01/anat/sub-01_ce-gad_T1w.nii.gz"
    assert names(find_scans(dataset(tmp_path, name), include_ce=True)) == [name]


def test_odd_participant_folders_are_named(tmp_path: Path) -> None:
    root = dataset(
        tmp_path,
        HEAD,
        "sub-a_b/anat/sub-a_b_T1w.nii.gz",
        "Sub-02/anat/Sub-02_T1w.nii.gz",
        "sub-3/x",
    )
    (root / "sub-gone").symlink_to("nowhere")
    found = find_scans(root)
    assert names(found) == [HEAD]
    assert [name for name, _ in found.left_out] == ["Sub-02", "sub-3", "sub-a_b", "sub-gone"]


def filtered(root: Path, query: Any, **options: Any) -> list[str]:
    path = root / "filter.json"
    path.write_text(query if isinstance(query, str) else json.dumps(query))
    found = find_scans(root, filter_file=path, **options)
    return [name.rpartition("/")[2].removesuffix("_T1w.nii.gz") for name in names(found)]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    stems = ("sub-01", "sub-01_acq-a_run-01", "sub-01_acq-b_run-02", "sub-01_run-10")
    return dataset(tmp_path, *(f"sub-01/anat/{stem}_T1w.nii.gz" for stem in stems))


@pytest.mark.parametrize("key", ["t1w", "T1w"])
@pytest.mark.parametrize(
    ("entities", "expected"),
    [
        ({}, ["sub-01", "sub-01_acq-a_run-01", "sub-01_acq-b_run-02", "sub-01_run-10"]),
        ({"acquisition": "a"}, ["sub-01_acq-a_run-01"]),
        ({"acquisition": ["a", "b"]}, ["sub-01_acq-a_run-01", "sub-01_acq-b_run-02"]),
        ({"acquisition": None}, ["sub-01", "sub-01_run-10"]),
        ({"acquisition": "Query.NONE"}, ["sub-01", "sub-01_run-10"]),
        ({"acquisition": "<Query.NONE: 1>"}, ["sub-01", "sub-01_run-10"]),
        ({"acquisition": ["b", None]}, ["sub-01", "sub-01_acq-b_run-02", "sub-01_run-10"]),
        ({"acquisition": "*"}, ["sub-01_acq-a_run-01", "sub-01_acq-b_run-02"]),
        ({"acquisition": "*", "run": 1}, ["sub-01_acq-a_run-01"]),
        ({"acquisition": "Query.OPTIONAL", "run": "10"}, ["sub-01_run-10"]),
        ({"suffix": "T1w", "datatype": "anat", "run": "01"}, ["sub-01_acq-a_run-01"]),
        ({"acquisition": "[ab]", "regex_search": True, "run": 2}, ["sub-01_acq-b_run-02"]),
    ],
)
def test_a_filter_file_means_what_it_means_to_fmriprep(
    many: Path, key: str, entities: dict[str, Any], expected: list[str]
) -> None:
    assert filtered(many, {key: entities, "bold": {"run": 7}}) == expected


@pytest.mark.parametrize(
    "query", [{}, {"bold": {"run": 7}}, {"t2w": {"subject": "9"}, "flair": {}}]
)
def test_a_filter_file_without_a_key_for_t1w_filters_nothing(many: Path, query: Any) -> None:
    assert len(filtered(many, query)) == 4


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("{", "not a JSON object"),
        ({"t1w": {}, "T1w": {}}, 'one key "t1w"'),
        ([], "not a JSON object"),
        ({"t1w": "anat"}, 'one key "t1w"'),
        ({"t1w": {"acq": "a"}}, r"'acq': no such entity. There are acquisition, atlas"),
        ({"t1w": {"return_type": "id"}}, "'return_type': no such entity"),
        ({"t1w": {"absolute_paths": False}}, "'absolute_paths': no such entity"),
        ({"t1w": {"self": 1, "scope": "raw"}}, "'scope', 'self': no such entity"),
        ({"t1w": {"regex_search": 1}}, "regex_search must be true or false"),
        ({"t1w": {"regex_search": True, "acquisition": "("}}, "no regular expression"),
        ({"t1w": {"run": {"from": 1}}}, "cannot be the value of an entity"),
        ({"t1w": {"subject": "01"}}, "--participant-label"),
        ({"t1w": {"session": "1"}}, "--session-label"),
    ],
)
def test_a_filter_file_that_makes_no_sense_is_refused(
    many: Path, query: Any, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        filtered(many, query, sessions=["1"])


@pytest.mark.parametrize(
    "options",
    [
        {"participants": ["02"]},
        {"sessions": ["9"]},
        {"participants": ["01", "02"]},
        {"participants": ["1"]},
        {"participants": ["01*"]},
    ],
)
def test_it_is_an_error_if_nothing_matches_or_nobody_has_that_label(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    root = dataset(tmp_path, HEAD)
    with pytest.raises(NoScanError):
        find_scans(root, **options)


def test_the_error_tells_why_the_only_image_was_left_out(tmp_path: Path) -> None:
    root = dataset(tmp_path, "sub-01/anat/sub-01_ce-gad_T1w.nii.gz")
    with pytest.raises(NoScanError, match="--include-ce"):
        find_scans(root)


def test_a_folder_without_description_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"dataset_description\.json cannot be read"):
        find_scans(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_broken_description_is_refused(tmp_path: Path, text: str) -> None:
    root = dataset(tmp_path, HEAD)
    (root / "dataset_description.json").write_text(text, encoding="latin-1")
    with pytest.raises(DatasetError, match="JSON"):
        find_scans(root)


def test_a_description_not_yet_fetched_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").symlink_to(".git/annex/objects/x")
    with pytest.raises(DatasetError, match="datalad get"):
        find_scans(tmp_path)


def test_labels_that_match_nothing_are_answered_with_some_that_are_there(
    valid_dataset: Path,
) -> None:
    with pytest.raises(
        NoScanError, match=r"--participant-label: .* no sub-9\. It has participants 01, 02\."
    ):
        find_scans(valid_dataset, participants=["9"])
    with pytest.raises(
        NoScanError,
        match=r"matches --session-label 9 8\. Its T1w images have sessions 1, 2 or none\.",
    ):
        find_scans(valid_dataset, sessions=["9", "8"])
    with pytest.raises(NoScanError, match=r"Those of the participants asked for have no session\."):
        find_scans(valid_dataset, participants=["01"], sessions=["9"])


def test_a_filter_that_matches_nothing_is_answered_with_what_is_there(tmp_path: Path) -> None:
    root = dataset(
        tmp_path / "bids",
        "sub-01/anat/sub-01_acq-a_run-01_T1w.nii.gz",
        "sub-01/anat/sub-01_acq-b_T1w.nii.gz",
    )
    file = tmp_path / "filter.json"
    file.write_text('{"t1w": {"run": 3, "acquisition": "a", "reconstruction": null}}')
    with pytest.raises(
        NoScanError,
        match=r"matches --bids-filter-file .*filter\.json\. Its T1w images have "
        r"run 01 or none; acquisitions a, b; no reconstruction\.",
    ):
        find_scans(root, filter_file=file)


def test_a_missing_folder_is_a_wrong_command_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        find_scans(tmp_path / "nothing")


def test_a_folder_that_cannot_be_read_does_not_go_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = dataset(tmp_path, HEAD, "sub-02/anat/sub-02_T1w.nii.gz")
    scandir = os.scandir

    def deny(folder: Any) -> Any:
        if str(folder).endswith("sub-02/anat"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    # In place of chmod, which does not stop the superuser.
    monkeypatch.setattr(os, "scandir", deny)
    found = find_scans(root)
    assert names(found) == [HEAD]
    ((folder, reason),) = found.unreadable
    assert folder == "sub-02/anat"
    assert "cannot be read (Permission denied)" in reason
    assert not found.left_out, "it is named once"
    assert not find_scans(root, participants=["01"]).unreadable
    with pytest.raises(DatasetError, match=r"sub-02/anat: it cannot be read"):
        find_scans(root, participants=["02"])


@pytest.mark.parametrize("links", [["ses-1"], ["ses-1", "ses-2"], ["ses-1", "ses-2", "anat"]])
def test_sessions_that_link_to_their_participant_end(tmp_path: Path, links: list[str]) -> None:
    root = dataset(tmp_path, HEAD)
    (root / "sub-02").mkdir()
    for link in links:
        (root / "sub-02" / link).symlink_to(".")
    found = find_scans(root)
    assert names(found) == [HEAD]
    assert ("sub-02", "no T1w image matches") in found.left_out


@pytest.mark.parametrize(
    "name",
    ["sub-01/anat/sub-01_acq-\udcff_T1w.nii.gz", "sub-01/ses-\udcff", "sub-\udcff"],
    ids=["image", "session", "participant"],
)
def test_names_that_are_no_utf_8_are_left_out(tmp_path: Path, name: str) -> None:
    root = dataset(tmp_path, HEAD)
    if name.endswith(".gz"):
        (root / name).touch()
    else:
        (root / name).mkdir()
    found = find_scans(root)
    assert names(found) == [HEAD]
    assert [path for path, _ in found.left_out] == [name]


@pytest.mark.parametrize("database", [False, True])
def test_a_dataset_whose_path_is_no_utf_8_is_found(tmp_path: Path, database: bool) -> None:
    root = dataset(tmp_path / "a\udcffb", HEAD)
    for _ in range(2):
        found = find_scans(root, database_dir=tmp_path / "database" if database else None)
        assert [(scan.path, scan.relative) for scan in found.scans] == [(root / HEAD, HEAD)]


@pytest.fixture
def indexing(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Participants of each time a dataset was indexed."""
    calls: list[set[str]] = []
    index: Callable[..., Any] = layout._index

    def note(root: Path, participants: Any, *rest: Any) -> Any:
        calls.append(set(participants))
        return index(root, participants, *rest)

    monkeypatch.setattr(layout, "_index", note)
    return calls


def test_a_database_made_for_one_participant_does_not_hide_the_others(
    tmp_path: Path, indexing: list[set[str]]
) -> None:
    second = "sub-02/anat/sub-02_T1w.nii.gz"
    root, database = dataset(tmp_path / "data", HEAD, second), tmp_path / "new" / "database"
    assert names(find_scans(root, participants=["01"], database_dir=database)) == [HEAD]
    assert names(find_scans(root, participants=["02"], database_dir=database)) == [second]
    assert names(find_scans(root, database_dir=database)) == [HEAD, second]
    assert indexing == [{"sub-01", "sub-02"}]


@pytest.mark.parametrize(
    "added", ["sub-01/anat/sub-01_run-2_T1w.nii.gz", "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"]
)
def test_a_database_does_not_hide_what_was_added_or_keep_what_was_removed(
    tmp_path: Path, added: str, indexing: list[set[str]]
) -> None:
    root, database = dataset(tmp_path / "data", HEAD), tmp_path / "database"
    find_scans(root, database_dir=database)
    dataset(root, added)
    assert names(find_scans(root, database_dir=database)) == sorted([HEAD, added])
    (root / HEAD).unlink()
    assert names(find_scans(root, database_dir=database)) == [added]
    assert len(indexing) == 3


def test_a_database_folder_serves_several_datasets(tmp_path: Path) -> None:
    other = "sub-01/anat/sub-01_run-1_T1w.nii.gz"
    one, two = dataset(tmp_path / "one", HEAD), dataset(tmp_path / "two", other)
    for root, name in [(one, HEAD), (two, other), (one, HEAD)]:
        assert names(find_scans(root, database_dir=tmp_path / "database")) == [name]
    kept = list((tmp_path / "database").iterdir())
    assert len(kept) == 2, "no temporary folder is left behind"


def test_another_run_may_be_faster_to_make_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, database = dataset(tmp_path / "data", HEAD), tmp_path / "database"
    find_scans(root, database_dir=database)
    with monkeypatch.context() as once:
        once.setattr(layout, "_is_current", lambda *_: False)
        once.setattr(Path, "rename", _refuse_full_folder)
        assert names(find_scans(root, database_dir=database)) == [HEAD]


def _refuse_full_folder(source: Path, target: Path) -> None:
    raise OSError(39, "Directory not empty") if "-old" not in target.name else FileNotFoundError


def test_a_database_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data", HEAD)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="--bids-database-dir"):
        find_scans(root, database_dir=tmp_path / "file")


def test_pybids_is_imported_late_and_without_a_home_folder(tmp_path: Path) -> None:
    code = """
import pwd, sys
from pathlib import Path
from bids_app.bids.scans import find_scans
assert "bids" not in sys.modules
def nobody(uid): raise KeyError(uid)
pwd.getpwuid = nobody
print(len(find_scans(Path(sys.argv[1])).scans))
"""
    environment = {key: value for key, value in os.environ.items() if key != "HOME"}
    command = [sys.executable, "-c", code, str(dataset(tmp_path, HEAD))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1\n", "")
