"""Results and failures become rows with declared types, flagged by the thresholds given."""

from __future__ import annotations

from made_tables import texts, volumes

from bids_app.bids.columns import GROUP
from bids_app.bids.outputs import Outputs
from bids_app.bids.results import Failure, RegionVolume, Result, Sidecar
from bids_app.group.table import flags_of, gather, in_doubt, shows_brainstem


def result(person="sub-01", label="open1", flags=(), session="", **quality):
    sidecar = Sidecar.model_validate(
        {
            "Sources": [f"bids:raw:{person}/anat/x_T1w.nii.gz"],
            "Model": {"Name": "open", "Version": "1"},
            "Quality": {"voxel_size_mm": [4.5, 3, 3], "etiv_mm3": 1.5e6, **quality},
            "Flags": flags,
        }
    )
    rows = (
        RegionVolume(2, "pons", "PO", 3, 12.5, label_volume_mm3=12.0, clusters=1),
        RegionVolume(7, "cord", "CO", 3, 1.0),
        RegionVolume(None, "brainstem", "BS", 3, 12.5),
    )
    return Result(Outputs(None, "", None), person, session, {"acq": "hi"}, label, sidecar, rows)


def failure(person="sub-09", label="open1"):
    source = f"{person}/anat/x_T1w.nii.gz"
    return Failure(person, "", {}, source, "open", "1", label, "no room")


def test_rows_have_declared_types_and_are_sorted():
    table = gather([result("sub-02"), result(session="ses-1"), result()], [failure()], {})
    assert list(table) == list(GROUP)
    assert table["participant_id"].tolist() == ["sub-01", "sub-02", "sub-09"]
    for name, column in GROUP.items():
        assert table[name].dtype == (object if column.dtype == "str" else float), name
    first = table.iloc[0]
    assert (first["pons_mm3"], first["pons_label_mm3"], first["pons_clusters"]) == (12.5, 12.0, 1)
    assert (first["acq"], first["voxel_size_mm"], first["etiv_mm3"]) == ("hi", "4.5x3x3", 1.5e6)
    assert table["midbrain_mm3"].isna().all()
    assert table["flags"].iloc[2] == "failed"
    assert table["failure"].iloc[2] == "no room"


def test_a_failure_whose_image_is_complete_by_now_does_not_count():
    table = gather([result("sub-09")], [failure(), failure(label="mars")], {})
    assert texts(table["flags"]) == [None, "failed"]


def test_flags_follow_the_thresholds_and_facts_stay():
    found = result(flags=("out_of_view", "low_resolution"), max_voxel_edge_mm=3.0)
    assert gather([found], [], {})["flags"].tolist() == ["out_of_view,low_resolution"]
    assert gather([found], [], {"low_resolution": 4.0})["flags"].tolist() == ["out_of_view"]


def test_an_image_without_brainstem_has_no_etiv_and_no_self_consistency():
    row = gather([result(flags=("no_brainstem",), pons_agreement=0.9)], [], {}).iloc[0]
    assert row["self_consistency"] == 0
    assert row["etiv_mm3"] != row["etiv_mm3"]
    assert flags_of(row) == ["no_brainstem", "low_self_consistency"]


def test_flags_of_rows():
    table = volumes({}, {"flags": "no_etiv"}, {"flags": "no_etiv,fragmented"},
                    {"flags": "no_brainstem"}, {"flags": "failed"})  # fmt: skip
    assert in_doubt(table).tolist() == [False, False, True, True, True]
    assert shows_brainstem(table).tolist() == [True, True, True, False, True]
    assert flags_of({"flags": "n/a"}) == flags_of({"flags": float("nan")}) == []
