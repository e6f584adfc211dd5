"""The command brainstem-volumes over folders of label maps."""

from __future__ import annotations

import re
import subprocess
import sys
from io import StringIO
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_app.cli.volumes import main
from bids_app.workflow.label_maps import find_label_maps

if TYPE_CHECKING:
    from pathlib import Path


def save_map(path: Path, dtype: str = "uint8", affine: Any = None) -> Path:
    """Midbrain of 24, pons of 64 and medulla of 12 voxels; the medulla in two pieces."""
    labels = np.zeros((12, 12, 20), dtype)
    labels[4:8, 4:6, 12:15] = 1
    labels[4:8, 4:8, 8:12] = 2
    labels[4:6, 4:6, 6:8] = 3
    labels[4:6, 4:6, 0] = 3
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, np.eye(4) if affine is None else affine), path)
    return path


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Maps at three depths, under the name that MARS-brainstem gives its maps."""
    folder = tmp_path / "study"
    save_map(folder / "a_brainstem.nii.gz")
    save_map(folder / "s1" / "b_brainstem.nii", affine=np.diag([1, 1, 2, 1]))
    save_map(folder / "s2" / "anat" / "c_brainstem.nii.gz", dtype="float32")
    save_map(folder / "s2" / "anat" / "c_T1w.nii.gz")
    save_map(folder / ".git" / "d_brainstem.nii.gz")
    return folder


def table_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> pd.DataFrame:
    assert main([str(argument) for argument in arguments]) == 0
    return pd.read_csv(StringIO(capsys.readouterr().out), sep="\t").set_index("path")


def test_prints_a_row_a_map_with_all_regions_and_their_union(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = table_of(capsys, study)
    assert list(table.index) == [
        "a_brainstem.nii.gz", "s1/b_brainstem.nii", "s2/anat/c_brainstem.nii.gz",
    ]  # fmt: skip
    assert table.loc["s1/b_brainstem.nii"].to_dict() == {
        "midbrain_voxels": 24, "midbrain_mm3": 48, "midbrain_clusters": 1,
        "pons_voxels": 64, "pons_mm3": 128, "pons_clusters": 1,
        "medulla_voxels": 12, "medulla_mm3": 24, "medulla_clusters": 2,
        "brainstem_voxels": 100, "brainstem_mm3": 200, "brainstem_clusters": 2,
    }  # fmt: skip


def test_the_apps_own_maps_are_found_and_told_apart_by_their_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [
        "sub-01/anat/sub-01_seg-open1_dseg.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_seg-open1_dseg.nii.gz",
        "sub-02/ses-2/anat/sub-02_ses-2_seg-open1_dseg.nii.gz",
    ]
    for name in (*names, "sub-01/anat/sub-01_dseg.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz"):
        save_map(tmp_path / name)
    assert list(table_of(capsys, tmp_path).index) == names, "a map of tissues has other labels"


def test_maps_of_whole_numbers_in_a_type_of_fractions_are_measured(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = table_of(capsys, study)
    np.testing.assert_array_equal(table.iloc[0], table.iloc[2])


@pytest.mark.parametrize(
    ("depth", "names"),
    [(0, ["a"]), (1, ["b"]), (2, ["c"]), (3, []), (-1, ["a", "b", "c"])],
)
def test_depth_counts_the_folders_above_a_map(study: Path, depth: int, names: list[str]) -> None:
    found = find_label_maps(study, depth=depth)
    assert [path.name[0] for path in found] == names


def test_any_pattern_of_file_names(study: Path) -> None:
    assert [path.name for path in find_label_maps(study, ["c_*"])] == [
        "c_T1w.nii.gz", "c_brainstem.nii.gz",
    ]  # fmt: skip


def test_labels_and_names_of_other_tools(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = table_of(capsys, study, "-l", 3, 1, "-n", "medulla oblongata", "mesencephalon", "-d", 0)
    row = table.loc["a_brainstem.nii.gz"]
    assert (row["medulla oblongata_voxels"], row["mesencephalon_voxels"]) == (12, 24)
    assert row["brainstem_voxels"] == 36
    assert "pons_voxels" not in table


def test_a_label_without_name_is_called_by_its_number(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = table_of(capsys, study, "-d", 0, "-l", 2, 16)
    assert list(table["pons_voxels"]) == [64]
    assert list(table["label16_voxels"]) == [0]


def test_one_label_needs_no_union(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = table_of(capsys, study, "-l", 2)
    assert list(table) == ["pons_voxels", "pons_mm3", "pons_clusters"]


def test_connectivity_joins_pieces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.zeros((5, 5, 5), np.uint8)
    labels[1, 1, 1] = labels[2, 2, 1] = labels[3, 3, 2] = 1
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "x_brainstem.nii")
    clusters = [
        int(table_of(capsys, tmp_path, "-c", c)["midbrain_clusters"].iloc[0]) for c in (1, 2, 3)
    ]
    assert clusters == [3, 2, 1]


@pytest.mark.parametrize(("ending", "separator"), [(".csv", ","), (".tsv", "\t")])
def test_the_ending_of_the_table_tells_its_format(
    study: Path, tmp_path: Path, ending: str, separator: str
) -> None:
    output = tmp_path / f"volumes{ending}"
    assert main([str(study), "-q", "-o", str(output)]) == 0
    assert len(pd.read_csv(output, sep=separator).columns) == 13


def test_an_existing_table_is_overwritten_only_when_asked(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "volumes.csv"
    output.write_text("precious")
    assert main([str(study), "-o", str(output)]) == 2
    assert "-x replaces it" in capsys.readouterr().err
    assert output.read_text() == "precious"
    assert main([str(study), "-o", str(output), "-x"]) == 0
    assert output.read_text().startswith("path,")


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("date", r"v_\d{4}-\d\d-\d\d\.csv"),
        ("time", r"v_\d{6}\.csv"),
        ("datetime", r"v_\d{4}-\d\d-\d\d_\d{6}\.csv"),
    ],
)
def test_the_date_goes_into_the_name_of_the_table(
    study: Path, tmp_path: Path, kind: str, pattern: str
) -> None:
    assert main([str(study), "-q", "-o", str(tmp_path / "v.csv"), "-t", kind]) == 0
    (table,) = tmp_path.glob("*.csv")
    assert re.fullmatch(pattern, table.name)


def test_maps_that_are_none_are_listed_and_left_out(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (study / "broken_brainstem.nii.gz").write_bytes(b"no image")
    (study / "gone_brainstem.nii.gz").symlink_to("annex/gone.nii.gz")
    probabilities = nib.Nifti1Image(np.full((5, 5, 5), 0.5, np.float32), np.eye(4))
    nib.save(probabilities, study / "soft_brainstem.nii.gz")
    output = tmp_path / "volumes.csv"
    assert main([str(study), "-q", "-o", str(output)]) == 1
    printed = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in printed] == [
        "broken_brainstem.nii.gz", "gone_brainstem.nii.gz", "soft_brainstem.nii.gz",
    ]  # fmt: skip
    assert len(pd.read_csv(output)) == 3


def test_no_table_is_written_where_no_map_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "x_brainstem.nii.gz").write_bytes(b"")
    assert main([str(tmp_path), "-o", str(tmp_path / "v.csv")]) == 1
    assert not (tmp_path / "v.csv").exists()


def test_quiet_prints_nothing_where_all_is_well(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(study), "-q", "-o", str(tmp_path / "v.csv")]) == 0
    assert capsys.readouterr() == ("", "")


def test_names_neither_reach_the_terminal_raw_nor_become_formulas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = save_map(tmp_path / "=a_brainstem.nii.gz").read_bytes()
    (tmp_path / "\x1b[2J\n_brainstem.nii.gz").write_bytes(b"bad")
    (tmp_path / "n\udcff_brainstem.nii.gz").write_bytes(good)
    assert main([str(tmp_path), "-l", "1", "-n", "=cmd"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("\\x1b[2J\\n_brainstem.nii.gz: left out: ")
    header, first, second = said.out.splitlines()
    assert header.startswith("path\t'=cmd_voxels\t")
    assert first.startswith("'=a_brainstem.nii.gz\t")
    assert second.startswith("n\\udcff_brainstem.nii.gz\t")


def test_nothing_found_ends_with_3(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(study), "-f", "*_mask.nii.gz"]) == 3
    assert "*_mask.nii.gz" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", "volumes.txt"],
        ["-t", "date"],
        ["-l", "1", "1"],
        ["-l", "0", "1"],
        ["-l", "1", "2", "-n", "midbrain"],
        ["-n", "same", "same", "other"],
        ["-n", "midbrain", "brainstem", "medulla"],
    ],
    ids=" ".join,
)
def test_wrong_command_lines_end_with_2_and_one_line(
    study: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main([str(study), *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_missing_folder_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "no such file or folder" in capsys.readouterr().err


def test_single_maps_are_measured_whatever_their_names(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    single = save_map(tmp_path / "labels of mine.nii.gz")
    assert list(table_of(capsys, single).index) == [str(single)]
    table = table_of(capsys, single, study / "s2", study / "a_brainstem.nii.gz")
    assert list(table.index) == [
        str(single),
        f"{study}/s2/anat/c_brainstem.nii.gz",
        f"{study}/a_brainstem.nii.gz",
    ]
    assert (table["pons_voxels"] == 64).all()
    single.write_bytes(b"no image")
    assert main([str(single), str(study)]) == 1
    assert capsys.readouterr().err.startswith(f"{single}: left out: ")


def test_the_command_line_is_read_without_heavy_packages() -> None:
    code = (
        "import sys; from bids_app.cli.volumes import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(*{'numpy', 'pandas', 'nibabel', 'scipy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == ""
