"""Find the images of heads in the folders of FreeSurfer and FastSurfer.

A subject's folder holds ``mri/orig.mgz``, the conformed image; ``mri/T1.mgz``, with normalized
intensities; and ``mri/norm.mgz``, skull-stripped. The first of these that is there is taken. See
https://surfer.nmr.mgh.harvard.edu/fswiki/ReconAllOutputFiles
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bids_app.bids.labels import LABEL
from bids_app.bids.scans import Found, Scan
from bids_app.errors import DatasetError, NoScanError, UsageError, listing
from bids_app.io.files import list_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DATASET = "freesurfer"  # its name among the links of the output dataset
IMAGES = ("orig", "T1", "norm")
_SUBJECT = re.compile(rf"(sub-)?(?P<sub>{LABEL})(_ses-(?P<ses>{LABEL}))?")
TEMPLATES = re.compile("fsaverage.*|[lr]h\\.EC_average|cvs_avg35.*|V1_average")


def find_image(subject: Path) -> Path | None:
    """Find the image of a subject; None if the folder is not that of a subject.

    Parameters
    ----------
    subject : Path
        Folder that holds ``mri``.
    """
    for name in IMAGES:
        path = subject / "mri" / f"{name}.mgz"
        if path.is_file() or path.is_symlink():
            return path
    return None


def find_subjects(
    folder: Path, *, participants: Sequence[str] = (), sessions: Sequence[str] = ()
) -> Found:
    """Find the images of the subjects in a folder of FreeSurfer or FastSurfer.

    Folders are named ``sub-<label>`` or ``sub-<label>_ses-<label>``, as fMRIPrep names them; the
    prefix ``sub-`` may be missing.

    Parameters
    ----------
    folder : Path
        FreeSurfer's SUBJECTS_DIR.
    participants, sessions : sequence of str
        Labels to restrict the search to, with or without ``sub-`` and ``ses-``.

    Raises
    ------
    UsageError
        There is no such folder.
    DatasetError
        It cannot be read.
    NoScanError
        There is no image, or none matches.
    """
    if not folder.is_dir():
        raise UsageError(f"--freesurfer-dir {folder}: no such folder.")
    root = folder.absolute()
    try:
        names = [entry.name for entry in list_folder(root) if entry.is_dir()]
    except OSError as error:
        raise DatasetError(
            f"--freesurfer-dir {folder} cannot be read ({error.strerror})."
        ) from None
    found, left_out = [], []
    for name in names:
        subject = root / name
        if not (subject / "mri").is_dir() or TEMPLATES.fullmatch(name):
            continue
        path = find_image(subject)
        if reason := _why_not(subject, path):
            left_out.append((name, reason))
        elif path is not None:
            relative = path.relative_to(root).as_posix()
            found.append(Scan(path, relative, _entities(name, path), DATASET))
    if not found:
        reasons = [f" {name}: {reason}." for name, reason in left_out[:1]]
        raise NoScanError("".join([f"No subject of FreeSurfer in {folder}.", *reasons]))
    there = {scan.participant for scan in found}
    wanted = {f"sub-{label.removeprefix('sub-')}" for label in participants} or there
    if unknown := wanted - there:
        raise NoScanError(
            f"--participant-label: {folder} has no {', '.join(sorted(unknown))}. It has "
            f"{listing('participant', (name.removeprefix('sub-') for name in there))}."
        )
    asked = {f"ses-{label.removeprefix('ses-')}" for label in sessions}
    scans = [s for s in found if s.participant in wanted and (not asked or s.session in asked)]
    if not scans:
        known = (s.session.removeprefix("ses-") if s.session else None for s in found)
        raise NoScanError(
            f"No subject in {folder} matches --session-label {' '.join(sessions)}. They have "
            f"{listing('session', known)}."
        )
    return Found(tuple(sorted(scans)), () if participants else tuple(left_out))


def _why_not(subject: Path, path: Path | None) -> str:
    """Say why a folder is not a person at one time; empty if it is."""
    if ".long." in subject.name:
        return "it is resampled to a template of several sessions; the folder of the session counts"
    if (subject / "base-tps").exists():
        return "it is a template of several sessions, not an image"
    if not _SUBJECT.fullmatch(subject.name):
        return "the folder of a subject is named sub-<label> or sub-<label>_ses-<label>"
    return "" if path else f"its folder mri has no {', '.join(IMAGES[:-1])} or {IMAGES[-1]}.mgz"


def _entities(name: str, path: Path) -> tuple[tuple[str, str], ...]:
    match = _SUBJECT.fullmatch(name)
    found = match.groupdict() if match else {}
    named = tuple((key, found[key]) for key in ("sub", "ses") if found.get(key))
    return (*named, ("desc", path.stem))
