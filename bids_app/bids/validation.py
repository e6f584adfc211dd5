"""The BIDS validator, run offline on the requested participants only.

Contract: `validate` checks the files at the top of the dataset and the folders of the requested
participants, and reports the validator's messages unchanged. Errors that concern a single image are
returned separately, because the app's own reader reports those.

This is the maintained BIDS validator (https://bids-validator.readthedocs.io). It can neither write
nor reach a network, since it runs in Deno without these permissions. It sees the dataset as a
folder of links, because it has no option to select participants.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass, replace
from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_app.bids.dataset import APP_NAME
from bids_app.errors import DatasetError, OutputError, printable, reason
from bids_app.io.files import list_folder, temporary_folder
from bids_app.io.tables import parse_json, read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Codes of errors in the bytes or the header of a single image.
IMAGE_CODES = frozenset(
    {
        "BOLD_NOT_4D",
        "EMPTY_FILE",
        "FILE_READ",
        "INVALID_GZIP",
        "MAGNITUDE_FILE_WITH_TOO_MANY_DIMENSIONS",
        "NIFTI_HEADER_UNREADABLE",
        "SYMLINK_BROKEN",
        "SYMLINK_CYCLE",
        "T1W_FILE_WITH_TOO_MANY_DIMENSIONS",
    }
)

# The validator skips these folders, which may be large.
_OPAQUE = frozenset({"code", "derivatives", "sourcedata"})

_SPECIFICATION = "https://bids-specification.readthedocs.io/en/stable"
_LOCATIONS_SHOWN = 2
_WITHOUT = "Reinstall the package deno, or pass --skip-bids-validation."


@dataclass(frozen=True)
class Report:
    """What the validator found.

    Attributes
    ----------
    errors : tuple of str
        Errors of the dataset, one text per code and message, in the validator's words.
    image_errors : dict of str to str
        The error in an image, by its relative path as in ``Scan.relative``.
    """

    errors: tuple[str, ...]
    image_errors: dict[str, str]


def validate(
    bids_dir: Path,
    participants: Sequence[str] = (),
    *,
    work_dir: Path | None = None,
    written: Sequence[Path] = (),
) -> Report:
    """Validate the part of a dataset that belongs to some participants.

    Folders that the app writes to may lie anywhere in the dataset and are no part of it. Besides
    those given here they are the results of earlier runs, which their description shows.

    Parameters
    ----------
    bids_dir : Path
        Root of the dataset.
    participants : sequence of str
        Labels, with or without ``sub-``; all participants if empty.
    work_dir : Path, optional
        Where the temporary folder of links goes; by default the system's temporary folder.
    written : sequence of Path
        Other folders that the app writes to, such as the output folder.

    Raises
    ------
    DatasetError
        The top folder cannot be read, or the validator itself failed.
    OutputError
        The temporary folder cannot be created.
    """
    wanted = {f"sub-{label.removeprefix('sub-')}" for label in participants}
    try:
        with temporary_folder("bids-validation", work_dir or Path(tempfile.gettempdir())) as folder:
            temporary = folder.absolute()
            of_app = {temporary, *(path.absolute() for path in written)}
            of_app |= {work_dir.absolute()} if work_dir else set()
            mirror = _Mirror(bids_dir, temporary, {path.resolve() for path in of_app})
            mirror.make(wanted)
            issues = _run_validator(temporary)
    except OSError as error:
        raise OutputError(
            f"The temporary folder cannot be written ({reason(error)}). Choose another one with "
            "--work-dir."
        ) from None
    report = _sort_out(issues, bids_dir, partial=bool(wanted))
    unseen = [
        f"{printable(folder)}: not validated, it cannot be read ({why})"
        for folder, why in sorted(mirror.unreadable.items())
    ]
    return replace(report, errors=(*report.errors, *unseen))


class _Mirror:
    """Mirrors the wanted part of a dataset: a link to each folder of plain files.

    A link in the dataset gets a link of its own, by way of one link to the dataset: when the
    validator itself reads a link that leads into git-annex, it takes the content for remote.

    Parameters
    ----------
    bids_dir : Path
    temporary : Path
        The mirror is made in its folder ``dataset``.
    of_app : set of Path
        Real paths of folders that the app writes to; they are left out.

    Attributes
    ----------
    unreadable : dict of str to str
        Folders that cannot be read, by their path in the dataset, and why. They are left out.
    """

    def __init__(self, bids_dir: Path, temporary: Path, of_app: set[Path]) -> None:
        self._source = temporary / "source"
        self._source.symlink_to(bids_dir.absolute())
        self._mirror = temporary / "dataset"
        self._mirror.mkdir()
        self._of_app = of_app
        self.unreadable: dict[str, str] = {}

    def make(self, wanted: set[str]) -> None:
        """Mirror the top folder, with the wanted participants; all if there are none.

        Raises
        ------
        DatasetError
            The top folder cannot be read.
        OSError
            The mirror cannot be written.
        """
        try:
            entries = list_folder(self._source)
        except OSError as error:
            raise DatasetError(
                f"{self._source.resolve()} cannot be read ({reason(error)}). Check its permissions."
            ) from None
        for entry in entries:
            is_participant = entry.name.startswith("sub-") and entry.is_dir()
            is_hidden = entry.name.startswith(".") and entry.name != ".bidsignore"
            if is_hidden or entry.name in _OPAQUE or self._is_of_app(entry):
                continue
            if not (wanted and is_participant) or entry.name in wanted:
                self._link(entry, self._mirror / entry.name)

    def _link(
        self, entry: os.DirEntry[str], mirror: Path, above: frozenset[Path] = frozenset()
    ) -> None:
        """Mirror an entry; `above` has the real paths of the folders that lead to it."""
        source = Path(entry.path)
        if not entry.is_dir() and not entry.is_file() and source.exists():
            mirror.touch()  # a FIFO, socket or device, which the validator would wait for: empty
            return
        # A folder with an extension (.ds, .zarr) is one recording; only its name counts.
        if not entry.is_dir() or source.suffix or self._is_plain(source):
            mirror.symlink_to(source)
            return
        real = source.resolve()
        if entry.is_symlink() and (real in above or source.parent.resolve().is_relative_to(real)):
            # a link to a folder that leads to it is a cycle there too
            mirror.symlink_to(mirror.name)
            return
        mirror.mkdir()
        for inner in self._entries(source):
            if not self._is_of_app(inner):
                self._link(inner, mirror / inner.name, above | {real})
        if not list_folder(mirror):
            mirror.rmdir()  # it holds nothing but folders of the app, or cannot be read

    def _is_plain(self, folder: Path) -> bool:
        """Whether a folder holds readable plain files and folders only, and none of the app."""
        entries = self._entries(folder)
        return folder.relative_to(self._source).as_posix() not in self.unreadable and not any(
            entry.is_symlink()
            or self._is_of_app(entry)
            or not (self._is_plain(Path(entry.path)) if entry.is_dir() else entry.is_file())
            for entry in entries
        )

    def _is_of_app(self, entry: os.DirEntry[str]) -> bool:
        """Whether the app writes to this folder, or wrote its results there earlier."""
        if not entry.is_dir():
            return False
        folder = Path(entry)
        if folder.resolve() in self._of_app:
            return True
        generators = read_json(folder / "dataset_description.json").get("GeneratedBy")
        return isinstance(generators, list) and any(
            isinstance(one, dict) and one.get("Name") == APP_NAME for one in generators
        )

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            return list_folder(folder)
        except OSError as error:
            self.unreadable[folder.relative_to(self._source).as_posix()] = reason(error)
            return []


def _run_validator(temporary: Path) -> dict[str, Any]:
    # A bare environment: neither HOME nor a variable of the validator (such as the address of
    # another schema) has an effect.
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments, no shell
            [
                *_validator_command(),
                "--format=json",
                "--ignoreWarnings",
                str(temporary / "dataset"),
            ],
            cwd=temporary,
            env={"DENO_DIR": str(temporary / "deno"), "HOME": str(temporary), "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except (OSError, ImportError) as error:  # Deno is absent or cannot be executed
        raise DatasetError(
            f"The BIDS validator cannot start ({reason(error)}). {_WITHOUT}"
        ) from None
    try:
        issues: dict[str, Any] = parse_json(done.stdout)["issues"]
    except (ValueError, KeyError, TypeError):
        ended = f"exit status {done.returncode}"
        if done.returncode < 0:
            ended = f"ended by signal {-done.returncode}; is there too little memory?"
        said = done.stderr.strip().splitlines() or [ended]
        raise DatasetError(f"The BIDS validator failed: {said[0]}. {_WITHOUT}") from None
    return issues


def _validator_command() -> list[str]:
    """Command that starts the validator's bundle without network and without writing.

    The console script of the wheel would grant both.
    """
    bundle = resources.files("bids_validator_deno") / "bids-validator.js"
    deno = import_module("deno").find_deno_bin()
    no_surprises = ["--no-prompt", "--no-config", "--no-remote"]
    return [os.fspath(deno), "run", *no_surprises, "--allow-read", "--allow-env", str(bundle)]


def _sort_out(issues: dict[str, Any], bids_dir: Path, *, partial: bool) -> Report:
    """Keep errors of single images apart from the others, both in the validator's words."""
    messages = issues["codeMessages"]
    missing = [
        issue["location"]
        for issue in issues["issues"]
        if issue["code"] == "SYMLINK_BROKEN" and _in_annex(bids_dir, issue["location"])
    ]
    image_errors: dict[str, str] = {}
    others: dict[tuple[str, str, str], list[str]] = {}
    # The validator's order depends on which file was read first.
    for issue in sorted(issues["issues"], key=lambda one: (one["code"], one.get("location", ""))):
        code, location = issue["code"], issue.get("location", "")
        head = f"[ERROR] {code} {messages.get(code, '').strip()}"
        if code in IMAGE_CODES and location.endswith((".nii", ".nii.gz")):
            image_errors.setdefault(location.removeprefix("/"), head)
        elif not _is_beyond_view(issue, missing, partial=partial):
            detail = issue.get("issueMessage", "").strip().replace("SPEC_ROOT", _SPECIFICATION)
            line = f":{issue['line']}" if "line" in issue else ""
            places = others.setdefault((head, issue.get("subCode", ""), detail), [])
            places.append(f"{location}{line}")
    return Report(
        errors=tuple(_text(*key, places) for key, places in others.items()),
        image_errors=image_errors,
    )


def _in_annex(bids_dir: Path, location: str) -> bool:
    return "annex/objects/" in str((bids_dir / location.removeprefix("/")).readlink())


def _is_beyond_view(issue: dict[str, Any], missing: Sequence[str], *, partial: bool) -> bool:
    """Whether an error only reports what is absent here: a network, annexed content, participants.

    For the validator a file whose content is missing from git-annex does not exist.
    """
    code, location = issue["code"], issue.get("location", "")
    if code == "HED_ERROR":
        return bool(issue.get("subCode") == "SCHEMA_LOAD_FAILED")
    if code == "SYMLINK_BROKEN":
        return location in missing
    if code == "SCANS_FILENAME_NOT_MATCH_DATASET":
        return any(_describes(location, path, whole_folder=True) for path in missing)
    if code == "SIDECAR_WITHOUT_DATAFILE" and any(_describes(location, path) for path in missing):
        return True
    inherited = code == "SIDECAR_WITHOUT_DATAFILE" and location.count("/") == 1
    return partial and (inherited or code == "ASSOCIATED_EMPTY_ROOM")


def _describes(location: str, path: str, *, whole_folder: bool = False) -> bool:
    """Whether a file describes one in or below its folder, by BIDS' inheritance principle."""
    folder, _, name = location.rpartition("/")
    parts = set(name.partition(".")[0].split("_"))
    of_path = set(path.rpartition("/")[2].partition(".")[0].split("_"))
    return path.startswith(f"{folder}/") and (whole_folder or parts <= of_path)


def _text(head: str, key: str, detail: str, places: Iterable[str]) -> str:
    found = sorted(set(places))
    lines = [head, key, *found[:_LOCATIONS_SHOWN]]
    if len(found) > _LOCATIONS_SHOWN:
        lines.append(f"{len(found) - _LOCATIONS_SHOWN} more files with the same issue")
    return "\n\t".join(line for line in [*lines, *detail.splitlines()] if line)
