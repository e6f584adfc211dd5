"""What all benchmarks share: outputs, timed processes, turns."""

import subprocess
import sys

import pytest

from benchmarks import common


def test_an_output_is_written_when_all_lines_are_there(tmp_path, capsys):
    path = tmp_path / "out.txt"
    with common.Output(path) as out:
        out("one", "")
        out("two\nthree")
        assert not path.exists()
    assert path.read_text() == capsys.readouterr().out == "one\n\ntwo\nthree\n"


def test_a_benchmark_that_fails_leaves_the_earlier_output(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("earlier")
    with pytest.raises(ZeroDivisionError), common.Output(path) as out:
        out(str(1 // 0))
    assert path.read_text() == "earlier"


def test_a_header_says_date_machine_versions_and_model():
    date, versions, model = common.header("random weights")
    assert date.startswith("20")
    assert versions.startswith("bids_app ")
    assert "torch" in versions
    assert model == "model: random weights"


def test_every_committed_text_says_its_model():
    texts = list(common.OUTPUTS.glob("*.txt"))
    assert len(texts) > 5
    for path in texts:
        assert "\nmodel: " in path.read_text(), path.name


def test_a_process_is_measured_and_its_lines_arrive():
    lines = []
    code = "import time; print('a', flush=True); x = bytearray(50_000_000); time.sleep(0.5)"
    cost = common.run([sys.executable, "-c", code], on_line=lines.append)
    assert lines == ["a"]
    assert 0.5 < cost.wall < 30
    assert cost.memory > 50_000_000


def test_memory_is_that_of_the_process():
    # The kernel counts what the parent holds when it starts the process, so the parent is small.
    code = """
import sys
from benchmarks import common
grow = "import time; x = bytearray(50_000_000); time.sleep(0.5)"
print(common.run([sys.executable, "-c", grow]).memory)
"""
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=common.REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 50_000_000 < int(found.stdout) < 500_000_000


def test_a_process_that_fails_ends_the_benchmark_with_its_last_words():
    with pytest.raises(SystemExit, match="no such thing"):
        common.run([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_variants_take_turns():
    order = []
    variants = {name: lambda name=name: order.append(name) or len(order) for name in "ab"}
    assert common.alternate(variants, 2) == {"a": [1, 3], "b": [2, 4]}
    assert order == ["a", "b", "a", "b"]


def test_the_median_cost_is_that_of_each_measure():
    costs = [common.Cost(1, 5, 10), common.Cost(2, 4, 30), common.Cost(9, 3, 20)]
    assert common.median_cost(costs) == common.Cost(2, 4, 30)
