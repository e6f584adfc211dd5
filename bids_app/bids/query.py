"""Query pybids for the images of some participants, optionally with an index on disk.

Contract: `read_query` translates the user's filters for pybids. `index_images` gives a pybids
layout with the images of at least the requested participants, those whose suffix is one of
`bids_app.bids.labels.SUFFIXES`, and nothing else from the dataset.
Nothing outside their folders is looked at, so the time does not depend on other participants;
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
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_app.bids.labels import SUFFIXES, T1W
from bids_app.errors import DatasetError, OutputError, UsageError
from bids_app.io.files import owned_name
from bids_app.io.tables import load_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from bids.layout import BIDSLayout

# Names match in upper and lower case, and images directly below a participant or session too, so
# that files that are nearly BIDS are reported instead of ignored.
_IMAGE_FOLDER = re.compile("ses-.+|anat", re.IGNORECASE)
_IMAGE = rf"(?i:(/ses-[^/]+)?(/anat)?(/[^/]*_({'|'.join(SUFFIXES)})\.nii(\.gz)?)?)"

_STAMPS = "folders.json"

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
        values to match, null for an absent entity, ``"*"`` for any value, several in a list.
        Without such a key it selects every image.
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


def index_images(
    root: Path, participants: Collection[str], present: Collection[str], database_dir: Path | None
) -> BIDSLayout:
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
    DatasetError
        A folder of theirs cannot be read.
    OutputError
        The database cannot be written.
    """
    stamps = _folder_times(root, participants)
    if database_dir is None:
        return _index(root, participants)
    database = database_dir.absolute() / f"anat-{_identity(root)}"
    if not _is_current(database, stamps):
        _make_database(root, present, database)
    return _layout(root, database)


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
    return {
        entity: [_query_value(one) for one in value]
        if isinstance(value, list)
        else _query_value(value)
        for entity, value in filters.items()
    }


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


def _folder_times(root: Path, participants: Iterable[str]) -> dict[str, int]:
    """Find when anything was last added to or removed from the folders of images, in ns.

    pybids skips folders that it cannot read, so they are found here.
    """
    folders = [root / participant for participant in participants]
    times = {}
    for folder in folders:  # grows as subfolders are found
        try:
            times[folder.relative_to(root).as_posix()] = folder.stat().st_mtime_ns
            with os.scandir(folder) as entries:
                folders += [
                    folder / entry.name
                    for entry in entries
                    if _IMAGE_FOLDER.fullmatch(entry.name) and entry.is_dir()
                ]
        except OSError as error:
            raise DatasetError(
                f"{folder} cannot be read ({error.strerror}). Check its permissions."
            ) from None
    return times


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
        stamps = _folder_times(root, present)
        _index(root, present, new).session.close()
        (new / _STAMPS).write_text(json.dumps(stamps))
        with suppress(FileNotFoundError):
            database.rename(old)
        try:
            new.rename(database)
        except OSError:
            if not database.is_dir():  # otherwise another run was faster
                raise
    except OSError as error:
        raise OutputError(
            f"{database.parent}: the database cannot be written there ({error.strerror}). "
            "Choose another --bids-database-dir."
        ) from None
    finally:
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _index(root: Path, participants: Iterable[str], database: Path | None = None) -> BIDSLayout:
    wanted = "|".join(re.escape(participant) for participant in participants)
    # Whatever matches is ignored, folders before they are entered. The end of the name is part of
    # the pattern: sub-01 is not sub-010.
    ignore = re.compile(rf"^/(?!({wanted}){_IMAGE}$)")
    indexer = _pybids().BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=[ignore])
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
