"""Query pybids for the images of some participants, optionally with an index on disk.

Contract: `read_query` translates the user's filters for pybids. `index_images` gives a pybids
layout with the images of at least the requested participants, those whose suffix is one of
`bids_app.bids.labels.SUFFIXES`, and nothing else from the dataset.
Folders that cannot be read are named, and the others are indexed. Nothing outside the participants'
folders is looked at, so the time does not depend on other participants;
`derivatives/`, `sourcedata/` and `code/` are never entered.

A database holds all participants, no matter which were requested when it was built, and the times
at which their folders last changed. It is reused only if the requested folders have not changed
since, so that no new image is missed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_app.bids.labels import SUFFIXES, T1W
from bids_app.errors import OutputError, UsageError, reason
from bids_app.io.files import (
    is_folder,
    list_folder,
    owned_name,
    status,
    temporary_folder,
    write_new,
)
from bids_app.io.tables import load_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from bids.layout import BIDSLayout

# Names match in upper and lower case, and images directly below a participant or session too, so
# that files that are nearly BIDS are reported instead of ignored.
_IMAGE_FOLDER = re.compile("ses-.+|anat", re.IGNORECASE)
_DEEPEST = 2  # sub-*/ses-*/anat; links may lead around in circles
# pybids keeps names in a database that takes text only, not bytes that are no UTF-8 (surrogates).
_NAME = r"[^/\ud800-\udfff]"
_ENDING = rf"_({'|'.join(SUFFIXES)})\.nii(\.gz)?"
_WANTED = rf"(?i:(/ses-{_NAME}+)?(/anat)?(/{_NAME}*{_ENDING})?)"
_IMAGE = re.compile(rf".*{_ENDING}", re.IGNORECASE)

_STAMPS = "folders.json"
_REGEX = "regex_search"  # makes pybids read values as regular expressions

# How fMRIPrep's records of a run spell queries that JSON cannot express.
_QUERY_NAME = re.compile(r"<?Query\.(NONE|ANY|REQUIRED|OPTIONAL)(: \d+>)?")


def _pybids() -> Any:
    """Import pybids: late, since it takes a second, and also without a home folder.

    On import it looks there for settings, and fails for users without one, as in a container.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = os.devnull
        try:
            import bids
        finally:
            del os.environ["HOME"]
    else:
        import bids
    return bids


def read_query(
    filter_file: Path | None, sessions: Sequence[str], suffix: str = T1W
) -> dict[str, Any]:
    """Make the query for pybids.

    Parameters
    ----------
    filter_file : Path, optional
        JSON file with a key for the suffix, such as ``t1w`` or ``T1w``: pybids entities and the
        values to match, null for an absent entity, ``"*"`` for any value, several in a list; with
        ``"regex_search": true`` the values are regular expressions. Without such a key it selects
        every image.
    sessions : sequence of str
        Labels with or without ``ses-``. None: all.
    suffix : str
        Suffix of the images.

    Returns
    -------
    dict
        Arguments for the layout's ``get``.

    Raises
    ------
    UsageError
        The file cannot be read or is invalid.
    """
    query: dict[str, Any] = {"suffix": suffix, "extension": [".nii", ".nii.gz"]}
    if filter_file is not None:
        query |= _read_filter(filter_file, suffix)
    if sessions:
        if "session" in query:
            raise UsageError(f"{filter_file} and --session-label both select sessions. Use one.")
        query["session"] = [label.removeprefix("ses-") for label in sessions]
    return query


@dataclass(frozen=True)
class Index:
    """The images of some participants.

    Attributes
    ----------
    layout : BIDSLayout
    root : Path
        Top folder of the dataset in the paths of `layout`.
    unreadable : dict of str to str
        Folders that cannot be read, by their path in the dataset, and why.
    not_text : tuple of str
        Folders and images with names that are no UTF-8, which `layout` lacks.
    """

    layout: BIDSLayout
    root: Path
    unreadable: dict[str, str]
    not_text: tuple[str, ...]


def index_images(
    root: Path, participants: Collection[str], present: Collection[str], database_dir: Path | None
) -> Index:
    """Index the images of some participants.

    Parameters
    ----------
    root : Path
        Absolute path of the dataset.
    participants : collection of str
        Folder names of the requested participants, such as ``"sub-01"``.
    present : collection of str
        Folder names of all participants of the dataset.
    database_dir : Path, optional
        Where databases are kept, one subfolder per dataset; created if needed.

    Raises
    ------
    OutputError
        The database, or a temporary folder, cannot be written.
    """
    looked = _look(root, participants)
    if not _is_text(str(root)):
        layout, link = _index_by_link(root, participants, looked.unreadable)
        return Index(layout, link, looked.unreadable, looked.not_text)
    if database_dir is None:
        layout = _index(root, participants, None, looked.unreadable)
    else:
        database = database_dir.absolute() / f"anat-{_identity(root)}"
        if not _is_current(database, looked.times):
            _make_database(root, present, database)
        layout = _layout(root, database)
    return Index(layout, root, looked.unreadable, looked.not_text)


def _read_filter(path: Path, suffix: str) -> dict[str, Any]:
    try:
        content = load_json(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise UsageError(f"{path} is not a JSON object ({error}).") from None
    keys = [key for key in (suffix.lower(), suffix) if key in content]
    if not keys:
        return {}  # filters for images of other kinds, as one file may serve several apps
    if len(keys) != 1 or not isinstance(content[keys[0]], dict):
        raise UsageError(f'{path} must hold one key "{suffix.lower()}" with the entities to match.')
    filters = content[keys[0]]
    if "subject" in filters:
        raise UsageError(f"{path} selects subjects. Use --participant-label for this.")
    known = {entity["name"] for entity in _file_name_entities()["entities"]}
    # Anything else may be an argument of pybids. fMRIPrep's users know one of these.
    if unknown := sorted(set(filters) - known - {_REGEX}):
        raise UsageError(
            f"{path}: {', '.join(map(repr, unknown))}: no such entity. There are "
            f"{', '.join(sorted(known - {'subject'}))}, and {_REGEX} (true or false)."
        )
    if not isinstance(filters.get(_REGEX, False), bool):
        raise UsageError(f"{path}: {_REGEX} must be true or false.")
    if filters.get(_REGEX):
        _check_expressions(path, filters)
    return {
        entity: [_query_value(one) for one in value]
        if isinstance(value, list)
        else _query_value(value)
        for entity, value in filters.items()
    }


def _check_expressions(path: Path, filters: dict[str, Any]) -> None:
    values = [
        v for value in filters.values() for v in (value if isinstance(value, list) else [value])
    ]
    for value in values:
        try:
            re.compile("" if value == "*" else str(value))
        except re.error as error:
            raise UsageError(f"{path}: {value!r} is no regular expression ({error}).") from None


def _query_value(value: Any) -> Any:
    query = _pybids().layout.Query
    if value is None:
        return query.NONE
    if value == "*":
        return query.ANY
    if not isinstance(value, str | int):
        raise UsageError(f"{value!r} in the BIDS filter file cannot be the value of an entity.")
    named = _QUERY_NAME.fullmatch(str(value))
    return query[named[1]] if named else value


@dataclass(frozen=True)
class _Looked:
    """What is in the folders of images; `times` is when each last changed, in ns."""

    times: dict[str, int]
    unreadable: dict[str, str]
    not_text: tuple[str, ...]


def _look(root: Path, participants: Iterable[str]) -> _Looked:
    """Look through the folders of T1w images for what pybids skips without a word."""
    folders = [(participant, 0) for participant in participants]
    times, unreadable, not_text = {}, {}, []
    for relative, depth in folders:  # grows as subfolders are found
        try:
            times[relative] = status(root / relative).st_mtime_ns
            entries = list_folder(root / relative)
            status(root / relative / ".")  # fails where the folder may be listed, not entered
        except OSError as error:
            unreadable[relative] = f"it cannot be read ({reason(error)}). Check its permissions"
            continue
        for entry in entries:
            inner = f"{relative}/{entry.name}"
            if _IMAGE_FOLDER.fullmatch(entry.name) and depth < _DEEPEST and entry.is_dir():
                if _is_text(entry.name):
                    folders.append((inner, depth + 1))
                else:
                    not_text.append(inner)
            elif _IMAGE.fullmatch(entry.name) and not _is_text(entry.name):
                not_text.append(inner)
    return _Looked(times, unreadable, tuple(not_text))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _index_by_link(
    root: Path, participants: Iterable[str], unreadable: Iterable[str]
) -> tuple[BIDSLayout, Path]:
    """Index a dataset whose path is no UTF-8, by way of a link to it that is gone afterwards."""
    try:
        with temporary_folder("bids-dataset", Path(tempfile.gettempdir())) as folder:
            link = folder / "dataset"
            link.symlink_to(root)
            return _index(link, participants, None, unreadable), link
    except OSError as error:
        raise OutputError(
            f"The temporary folder cannot be written ({reason(error)}). Set TMPDIR to another one."
        ) from None


def _is_current(database: Path, stamps: dict[str, int]) -> bool:
    try:
        known = load_json(database / _STAMPS)
    except (OSError, ValueError):
        return False
    return all(known.get(folder) == time for folder, time in stamps.items())


def _make_database(root: Path, present: Iterable[str], database: Path) -> None:
    """Index all participants into a new folder, and replace the previous one by it."""
    new = database.with_name(owned_name(database.name))
    old = database.with_name(owned_name(f"{database.name}-old"))
    try:
        new.mkdir(parents=True)
        looked = _look(root, present)
        stamps = looked.times
        _index(root, present, new, looked.unreadable).session.close()
        write_new(new / _STAMPS, json.dumps(stamps).encode())
        with suppress(FileNotFoundError):
            database.rename(old)
        try:
            new.rename(database)
        except OSError:
            if not is_folder(database):  # otherwise another run was faster
                raise
    except OSError as error:
        raise OutputError(
            f"{database.parent}: the database cannot be written there ({error.strerror}). "
            "Choose another --bids-database-dir."
        ) from None
    finally:
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _index(
    root: Path,
    participants: Iterable[str],
    database: Path | None = None,
    unreadable: Iterable[str] = (),
) -> BIDSLayout:
    wanted = "|".join(re.escape(participant) for participant in participants)
    # Whatever matches is ignored, folders before they are entered. The end of the name is part of
    # the pattern: sub-01 is not sub-010.
    ignore = re.compile(rf"^/(?!({wanted}){_WANTED}$)")
    # pybids fails in folders that it may not enter.
    skipped = [re.compile(rf"^/{re.escape(folder)}(/|$)") for folder in unreadable]
    indexer = _pybids().BIDSLayoutIndexer(
        validate=False, index_metadata=False, ignore=[ignore, *skipped]
    )
    return _layout(root, database, indexer)


def _layout(root: Path, database: Path | None, indexer: Any = None) -> BIDSLayout:
    return _pybids().BIDSLayout(
        root,
        validate=False,
        config=[_file_name_entities()],
        database_path=database,
        indexer=indexer,
    )


def _file_name_entities() -> dict[str, Any]:
    """Give pybids' definitions of entities, restricted to the file name.

    Unchanged, they match anywhere in the path, also in the folders above the dataset.
    """
    paths = _pybids().config.get_option("config_paths")
    config = load_json(Path(paths["bids"]))
    known = {entity["name"] for entity in config["entities"]}
    config["entities"] += [  # desc and space among them
        entity
        for entity in load_json(Path(paths["derivatives"]))["entities"]
        if entity["name"] not in known
    ]
    for entity in config["entities"]:
        entity["pattern"] += "(?=[^/]*$)"
    return config


def _identity(root: Path) -> str:
    """Name the database of one dataset, as this version of pybids would write it."""
    known = [str(root), _pybids().__version__, _file_name_entities()]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]
