"""What the recipes of the container image promise to each other; the image itself is tried by
`containers/check.sh`.
"""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import bids_app

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DEFINITION = (ROOT / "containers" / "apptainer.def").read_text()


def copied_by_dockerfile() -> set[str]:
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return {path for line in lines for path in line.split()[:-1]}


def copied_by_definition() -> dict[str, str]:
    [section] = re.findall(r"^%files\n((?: .+\n)+)", DEFINITION, re.MULTILINE)
    return dict(line.split() for line in section.splitlines())


def test_both_recipes_copy_the_same_files_which_are_there():
    assert copied_by_dockerfile() == set(copied_by_definition())
    assert all((ROOT / path).exists() for path in copied_by_dockerfile())
    assert all(place == f"/src/{path}" for path, place in copied_by_definition().items())


def test_dockerignore_lets_in_what_the_dockerfile_copies_and_no_more():
    lines = (ROOT / ".dockerignore").read_text().split()
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert lines[0] == "*"
    assert let_in == copied_by_dockerfile()
    assert any(fnmatch.fnmatch("bids_app/__pycache__", line) for line in lines)


def test_both_recipes_start_from_one_base():
    [base] = set(re.findall(r"^FROM (debian:\S+)", DOCKERFILE, re.MULTILINE))
    assert set(re.findall(r"^From: (\S+)", DEFINITION, re.MULTILINE)) == {base}


def test_both_recipes_take_the_same_arguments_with_the_same_defaults():
    [section] = re.findall(r"^%arguments\n((?: .+\n)+)", DEFINITION, re.MULTILINE)
    arguments = dict(re.findall(r"^ARG (\w+)=(.*)$", DOCKERFILE, re.MULTILINE))
    assert dict(line.strip().split("=") for line in section.splitlines()) == arguments
    assert set(re.findall(r"{{ (\w+) }}", DEFINITION)) == set(arguments)


def test_both_recipes_name_the_version_of_the_package():
    assert f'org.opencontainers.image.version="{bids_app.__version__}"' in DOCKERFILE
    assert f"org.opencontainers.image.version {bids_app.__version__}\n" in DEFINITION


def test_the_container_is_not_root_unless_asked():
    last_stage = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last_stage, re.MULTILINE)


def test_workflows_name_actions_by_commit_and_ask_for_no_more_than_they_need():
    for name in ("ci.yml", "release.yml"):
        path = ROOT / ".github" / "workflows" / name
        text = path.read_text()
        used = re.findall(r"uses: (?!\./)(\S+)", text)
        assert used, path.name
        assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) for action in used), path.name
        assert "\npermissions:\n  contents: read\n" in text, path.name
    jobs = re.split(r"\n  (?=\w+:\n)", text[text.index("\njobs:") :])
    writing = [job for job in jobs if "contents: write" in job]
    assert {job.partition(":")[0] for job in writing} == {"pages", "release"}
    assert not any(re.search(r"pip install|make |mkdocs", job) for job in writing)
