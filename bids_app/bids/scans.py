"""Find the images to segment in a BIDS dataset.

Contract: every file of the requested participants that looks like an image of a suffix that the
user asks for, T1w by default, is either a `Scan`,
skipped by the user's own filter, or left out with a reason. A `Scan` keeps its entities as written
in the file name, leading zeros included. No image is opened here, so a link to content that
git-annex has not fetched yet is a scan like any other.

Names follow https://bids-specification.readthedocs.io/en/stable/appendices/entities.html
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_app.bids.ignored import Ignored
from bids_app.bids.labels import LABEL, SUFFIXES, T1W, differing_in_case, suffix_of
from bids_app.bids.query import index_images, read_query
from bids_app.errors import DatasetError, NoScanError, UsageError, listing
from bids_app.io.files import is_folder, list_folder
from bids_app.io.tables import load_json

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from bids.layout import BIDSLayout

# Entities that both an anatomical image and its label map may have, in the order of BIDS.
ENTITIES = ("sub", "ses", "task", "acq", "ce", "rec", "run", "echo", "part", "chunk")

_NUMBERED = frozenset({"run", "echo", "chunk"})
_LABEL, _INDEX = re.compile(LABEL), re.compile("[0-9]+")
_ENDING = re.compile(rf"_({'|'.join(SUFFIXES)})\.nii(\.gz)?$", re.IGNORECASE)
_SUFFIXES = {suffix.lower(): suffix for suffix in SUFFIXES}
_PART_OF_OTHERS = frozenset({"inv", "mod"})
_IN_NAMES = (*ENTITIES, "desc")  # of derivatives, whose label maps get a `desc` of their own
_DESC = re.compile(rf"_desc-({LABEL})_")
_RESAMPLED = re.compile("_(space|res)-")


@dataclass(frozen=True, order=True)
class Scan:
    """One image of a dataset.

    Attributes
    ----------
    path : Path
        Absolute path.
    relative : str
        Path in the dataset, such as ``"sub-01/anat/sub-01_T1w.nii.gz"``.
    entities : tuple of (str, str)
        Key and value of each entity in the order of BIDS, as written in the file name.
    dataset : str
        Which dataset: ``"raw"`` is BIDS_DIR.
    """

    path: Path
    relative: str
    entities: tuple[tuple[str, str], ...]
    dataset: str = "raw"

    @property
    def participant(self) -> str:
        """Participant with its prefix, such as ``"sub-01"``."""
        return f"sub-{dict(self.entities)['sub']}"

    @property
    def session(self) -> str | None:
        """Session with its prefix, or None."""
        label = dict(self.entities).get("ses")
        return None if label is None else f"ses-{label}"

    @property
    def suffix(self) -> str:
        """Suffix of its name, such as ``"T1w"``."""
        return suffix_of(self.relative)

    @property
    def desc(self) -> str:
        """Label of ``desc-``, such as ``"preproc"``; empty for an image that is no derivative."""
        return dict(self.entities).get("desc", "")


@dataclass(frozen=True)
class Kinds:
    """Which kinds of images the user asks for.

    Attributes
    ----------
    suffixes : tuple of str
        Some of `bids_app.bids.labels.SUFFIXES`.
    descs : tuple of str
        Labels of ``desc-``; if empty, images without this entity.
    """

    suffixes: tuple[str, ...] = (T1W,)
    descs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How messages call them: ``"T1w or T2w"``, ``"desc-preproc_T1w"``."""
        described = [f"desc-{desc}_" for desc in self.descs] or [""]
        return " or ".join(desc + suffix for suffix in self.suffixes for desc in described)

    def nothing_found(self, others: Collection[tuple[str, str]]) -> str:
        """Say that a participant has no such image, and which others there are.

        Parameters
        ----------
        others : collection of (str, str)
            Suffix and label of ``desc-`` of other images.
        """
        if not others:
            return f"no {self.name} image matches"
        there = [s for s in SUFFIXES if any(s == suffix for suffix, _ in others)]
        fitting = [suffix for suffix in there if suffix in self.suffixes]
        advice = f"add --suffix {' '.join(there)}"
        if fitting:  # it is the description that differs
            there = [
                f"desc-{desc}_{suffix}" if desc else suffix
                for suffix, desc in sorted(others)
                if suffix in fitting
            ]
            described = sorted({desc for suffix, desc in others if suffix in fitting and desc})
            advice = f"choose --desc {' '.join(described)}" if described else "leave out --desc"
        return f"no {self.name} image; {' and '.join(there)} found; {advice}"


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes
    ----------
    scans : tuple of Scan
        Images to process, sorted by path.
    left_out : tuple of (str, str)
        Path in the dataset, and the reason why it is left out.
    same_but_case : tuple of tuple of str
        Folders and images whose names differ in upper and lower case only.
    unreadable : tuple of (str, str)
        Path of a folder of T1w images that cannot be read, and the reason.
    """

    scans: tuple[Scan, ...]
    left_out: tuple[tuple[str, str], ...]
    same_but_case: tuple[tuple[str, ...], ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()


def find_scans(
    bids_dir: Path,
    *,
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    filter_file: Path | None = None,
    database_dir: Path | None = None,
    include_ce: bool = False,
    kinds: Kinds = Kinds(),
) -> Found:
    """Find the images of a dataset.

    Parameters
    ----------
    bids_dir : Path
        Root of the dataset.
    participants, sessions : sequence of str
        Labels to restrict the search to, with or without ``sub-`` and ``ses-``.
    filter_file : Path, optional
        JSON file with a key for each suffix, such as ``t1w`` (or ``T1w``), that holds pybids
        entities and the values to accept, as fMRIPrep reads it: null for an absent entity, ``"*"``
        for any value.
    database_dir : Path, optional
        Where an index of the dataset is kept for later runs.
    include_ce : bool
        Accept images with contrast agent (``ce-``).
    kinds : Kinds
        Which kinds of images to find.

    Raises
    ------
    UsageError
        There is no such folder, or the filter file is invalid.
    DatasetError
        The folder is not a BIDS dataset, or it has no image and a folder that cannot be read.
    NoScanError
        No image matches, or a requested participant does not exist.
    OutputError
        The database cannot be written.
    """
    root = bids_dir.absolute()
    _check_dataset(root)
    present, left_out = _participants(root)
    chosen = {f"sub-{label.removeprefix('sub-')}" for label in participants} or set(present)
    if unknown := chosen.difference(present):
        listed = ", ".join(sorted(unknown))
        there = listing("participant", (name.removeprefix("sub-") for name in present))
        raise NoScanError(f"--participant-label: {bids_dir} has no {listed}. It has {there}.")
    if participants:
        left_out = []

    queries = {suffix: read_query(filter_file, sessions, suffix) for suffix in kinds.suffixes}
    index = index_images(root, chosen, present, database_dir)
    layout = index.layout
    try:
        matching = {
            path
            for query in queries.values()
            for path in layout.get(**query | {"return_type": "filename"})
        }
    except ValueError as error:  # of pybids, such as a value that an entity cannot have
        raise UsageError(f"{filter_file}: {error}") from None
    ignored = Ignored.of(root)
    scans, passed_over = [], set()
    others: dict[str, set[tuple[str, str]]] = defaultdict(set)  # suffix and desc, by participant
    for path in map(Path, layout.get(return_type="filename")):
        relative = path.relative_to(index.root).as_posix()
        if relative.split("/")[0] not in chosen:
            continue  # the database knows all participants
        suffix, desc = _suffix(relative), _desc(relative)
        if suffix not in kinds.suffixes or (kinds.descs and desc not in kinds.descs):
            others[relative.split("/")[0]].add((suffix, desc))
            continue
        if relative in ignored:
            left_out.append((relative, "the dataset's .bidsignore lists it"))
            continue
        try:
            scan = Scan(root / relative, relative, read_entities(relative))
            if str(path) in matching:
                chosen_by_filter = "desc" in queries[suffix]
                _check_usable(
                    scan, include_ce=include_ce, derived=bool(kinds.descs) or chosen_by_filter
                )
                scans.append(scan)
            else:
                passed_over.add(str(path))
        except ValueError as error:
            left_out.append((relative, str(error)))
    left_out += [(name, "its name is no text in UTF-8") for name in index.not_text]
    found_for = {scan.participant for scan in scans}
    if kinds.descs:  # pipelines write a copy in the space of a template beside that of the person
        left_out = [
            (name, reason)
            for name, reason in left_out
            if not (_RESAMPLED.search(name) and name.split("/")[0] in found_for)
        ]
    named = [name for name, _ in left_out] + list(index.unreadable)
    heard_of = found_for | {name.split("/")[0] for name in named}
    left_out += [
        (name, kinds.nothing_found(others[name])) for name in chosen if name not in heard_of
    ]
    if not scans:
        for name, why in index.unreadable.items():
            raise DatasetError(f"{root / name}: {why}.")
        if passed_over and not any(str(index.root / name) in matching for name, _ in left_out):
            options = [f"--session-label {' '.join(sessions)}"] if sessions else []
            options += [f"--bids-filter-file {filter_file}"] if filter_file else []
            whose = "Those of the participants asked for"
            raise NoScanError(
                f"No {kinds.name} image in {bids_dir} matches {' and '.join(options)}. "
                f"{whose if participants else f'Its {kinds.name} images'} "
                f"have {_what_is_there(layout, passed_over, queries)}."
            )
        reasons = [f" {name}: {reason}." for name, reason in sorted(left_out)[:1]]
        raise NoScanError("".join([f"No {kinds.name} image to work on in {bids_dir}.", *reasons]))
    alike = differing_in_case([*present, *(scan.relative for scan in scans)])
    unreadable = tuple(sorted(index.unreadable.items()))
    return Found(tuple(sorted(scans)), tuple(sorted(left_out)), tuple(alike), unreadable)


def read_entities(relative: str) -> tuple[tuple[str, str], ...]:
    """Read the entities of an image from its path in the dataset.

    Returns
    -------
    tuple of (str, str)
        As for `Scan.entities`.

    Raises
    ------
    ValueError
        It is not the BIDS name of such an image, or does not match its folders; says why.
    """
    *folders, name = relative.split("/")
    suffix = _suffix(relative)
    if not name.endswith((f"_{suffix}.nii", f"_{suffix}.nii.gz")):
        raise ValueError(
            f"the name of a {suffix} image ends in _{suffix}.nii or _{suffix}.nii.gz, in exactly "
            "this case"
        )
    entities: dict[str, str] = {}
    for part in _ENDING.sub("", name).split("_"):
        key, _, value = part.partition("-")
        pattern = _INDEX if key in _NUMBERED else _LABEL
        if key in ("space", "res"):
            raise ValueError(f"it is resampled ({part}), so its volumes may not be the person's")
        if key in _PART_OF_OTHERS:
            raise ValueError(f"it has the entity {key}-, so it is only a part of an image")
        if key not in _IN_NAMES or key in entities or not pattern.fullmatch(value):
            raise ValueError(f"{part!r} in its name is not a BIDS entity of a {suffix} image")
        entities[key] = value
    expected = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities] + ["anat"]
    if folders != expected:
        raise ValueError(f"by its name it belongs in {'/'.join(expected)}")
    return tuple((key, entities[key]) for key in _IN_NAMES if key in entities)


def _suffix(relative: str) -> str:
    """Read the suffix of a name, in upper or lower case."""
    match = _ENDING.search(relative)
    return _SUFFIXES[match[1].lower()] if match else T1W


def _desc(relative: str) -> str:
    """Read the label of ``desc-`` in a name; empty if there is none."""
    match = _DESC.search(relative)
    return match[1] if match else ""


def _what_is_there(
    layout: BIDSLayout, paths: Collection[str], queries: Mapping[str, dict[str, Any]]
) -> str:
    """List the values that some images have of the entities that the user asked for."""
    images = [image.entities for image in layout.get() if image.path in paths]
    asked: dict[str, None] = {}
    for suffix, query in queries.items():
        usual = read_query(None, (), suffix)
        asked |= {entity: None for entity, value in query.items() if value != usual.get(entity)}
    return "; ".join(
        listing(entity, (str(i[entity]) if entity in i else None for i in images))
        for entity in asked
    )


def _check_usable(scan: Scan, *, include_ce: bool, derived: bool) -> None:
    entities = dict(scan.entities)
    if scan.desc and not derived:
        raise ValueError(f"it is a derivative (desc-{scan.desc}); --desc {scan.desc} selects it")
    if "ce" in entities and not include_ce:
        raise ValueError("it was taken with a contrast agent (--include-ce includes it)")
    if entities.get("part", "mag") != "mag":
        raise ValueError(f"it holds the {entities['part']} part, not magnitudes")


def _check_dataset(root: Path) -> None:
    if not is_folder(root):
        raise UsageError(f"{root}: no such folder.")
    path = root / "dataset_description.json"
    try:
        load_json(path)
    except OSError as error:
        missing = f"{root} is not a BIDS dataset: dataset_description.json"
        hint = f" Fetch it: datalad get {path}" if path.is_symlink() else ""
        raise DatasetError(f"{missing} cannot be read ({error.strerror}).{hint}") from None
    except ValueError as error:
        raise DatasetError(f"{path} is not a JSON object ({error}).") from None


def _participants(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """List the participants' folders, and entries that look like one but are not."""
    names, left_out = [], []
    try:
        entries = list_folder(root)
    except OSError as error:
        raise DatasetError(f"{root} cannot be read ({error.strerror}).") from None
    for entry in entries:
        prefix, dash, label = entry.name.partition("-")
        if not dash or prefix.lower() != "sub":
            continue
        if not entry.is_dir():
            if entry.is_symlink():
                left_out.append((entry.name, "its link is dangling"))
        elif prefix == "sub" and _LABEL.fullmatch(label):
            names.append(entry.name)
        else:
            left_out.append(
                (
                    entry.name,
                    "the folder of a participant is named sub- and then letters, digits or +",
                )
            )
    return names, left_out
