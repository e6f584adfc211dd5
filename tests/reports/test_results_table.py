"""The table of all results: a row for each, and the data behind it for the script."""

from bids_app.reports import results_table

from .test_group import cells, data, row


def test_every_result_has_a_row_flagged_ones_first(dataset):
    rows = [
        row("sub-01"),
        row("sub-02", flags="fragmented,out_of_view"),
        row("sub-03"),
        row("sub-04", flags="failed"),
    ]
    page = dataset.group(rows)
    assert [line[1] for line in cells(page)] == ["sub-04", "sub-02", "sub-01", "sub-03"]
    assert [line[0] for line in cells(page)] == ["failed", "fragmentedout_of_view", "none", "none"]
    assert "3 results, 1 flagged, 1 failed." in page.text


def test_volumes_are_in_millilitres(dataset):
    line = cells(dataset.group([row()]))[0]
    assert line[3:9] == ["open", "1.0.0", "9.00", "15.00", "5.00", "29.00"]


def test_an_outlier_says_which_regions_and_how_far(dataset):
    scores = {"pons_robust_z": "4.21", "medulla_robust_z": "-3.90", "brainstem_robust_z": "-5.00"}
    out = row("sub-02", flags="outlier,outlier_in_batch", pons_batch_z="-3.60", **scores)
    page = dataset.group([row(pons_robust_z="0.10"), out], thresholds={"outlier": 4.0})
    why = "pons +4.21, brainstem -5.00 in the dataset; pons -3.60 at its site and scanner"
    assert cells(page)[0][0] == f"outlieroutlier_in_batch{why}"
    assert [line[-3] for line in data(page)["rows"]] == [why, ""]
    assert "are the regions that are outliers" in page.text
    assert "more than 4 robust standard deviations" in page.text
    assert cells(page)[0][-1] == "-5.00"  # furthest out


def test_a_volume_has_its_place_among_all_of_the_same_model(dataset):
    rows = [row(f"sub-{i:02d}", scale=1 + i / 10) for i in range(5)]
    rows += [row("sub-05", model="mars"), row("sub-06", flags="failed", scale=0)]
    page = dataset.group([*rows, row("sub-07", flags="no_brainstem", scale=0)])
    pons = {line[1]: line[6] for line in cells(page)}
    assert pons["sub-00"] == "15.001 of 5"
    assert pons["sub-04"] == "21.005 of 5"
    assert pons["sub-05"] == "15.00"  # no five of its model
    assert pons["sub-07"] == "0.00"
    assert [line[-2:] for line in data(page)["rows"] if line[1] == "sub-04"] == [[[5] * 4, 5]]


def test_equal_volumes_share_the_middle_place(dataset):
    page = dataset.group([row(f"sub-{i}") for i in range(6)])
    assert cells(page)[0][6] == "15.003 of 6"


def test_a_row_leads_to_its_result_in_the_participants_page(dataset):
    page = dataset.add("sub-01_ses-1").participant()
    identifiers = {found["id"] for found in page.all("h2")}
    links = [
        a["href"]
        for a in dataset.group([row(session="ses-1")], reported={"sub-01"}).all("a")
        if ".html" in a["href"]
    ]
    address, place = links[0].split("#")
    assert (dataset.folder / address).is_file()
    assert place in identifiers


def test_a_participant_without_a_page_is_not_linked(dataset):
    assert not [a for a in dataset.group([row()]).all("a") if ".html" in a["href"]]


def test_columns_that_say_nothing_are_left_out(dataset):
    assert "Session" not in dataset.group([row()]).text
    page = dataset.group([row(session="ses-1", run="2")])
    assert "Session" in page.text
    assert "Run" in page.text
    assert "Echo" not in page.text


def test_the_script_has_every_result_also_those_left_out_of_the_page(dataset, monkeypatch):
    monkeypatch.setattr(results_table, "STATIC", 3)
    page = dataset.group(
        [row(f"sub-{i:02d}") for i in range(9)] + [row("sub-10", flags="wrong_order")]
    )
    assert [line[1] for line in cells(page)] == ["sub-10", "sub-00", "sub-01"]
    names = [column["name"] for column in data(page)["columns"]]
    assert names[:2] == ["flags", "participant_id"]
    assert len(data(page)["rows"]) == 10
    assert data(page)["rows"][0][names.index("pons_mm3")] == "15.00"


def test_a_page_too_large_keeps_the_flagged_and_says_so(dataset, monkeypatch):
    monkeypatch.setattr(results_table, "MOST", 3)
    page = dataset.group(
        [row(f"sub-{i:02d}") for i in range(9)] + [row("sub-10", flags="wrong_order")]
    )
    assert [line[1] for line in data(page)["rows"]] == ["sub-10", "sub-00", "sub-01"]
    assert "This page holds 3 of 10 results" in page.text


def test_the_data_cannot_end_their_block(dataset):
    evil = "</script><script>alert(1)</script>"
    page = dataset.group([row(participant=evil)])
    assert "<script>alert" not in page.source
    assert data(page)["rows"][0][1] == evil
