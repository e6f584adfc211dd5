"""Exceptions with their exit codes; each carries one clear line that says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class BrainstemError(Exception):
    """Base of every error that the user can fix.

    Attributes
    ----------
    exit_code : int
        Status with which a command ends when this error ends it.
    """

    exit_code = 1


class ImageError(BrainstemError):
    """One image cannot be used or failed; the other images go on."""


class UsageError(BrainstemError):
    """The command line asks for something that cannot be done."""

    exit_code = 2


class NoScanError(BrainstemError):
    """No image, or no result, matches the request."""

    exit_code = 3


class DatasetError(BrainstemError):
    """The input is not a valid BIDS dataset."""

    exit_code = 4


class ModelError(BrainstemError):
    """A model is missing, damaged, or differs from its manifest."""

    exit_code = 5


class OutputError(BrainstemError):
    """The output folder cannot be written, or belongs to another source dataset."""

    exit_code = 6


class PlaceError(OutputError):
    """One file or folder of the output cannot be written; others may be."""


def printable(text: object, keep: str = "") -> str:
    """Escape what a terminal would not print as it stands, such as in names of files.

    Those are control characters, line breaks, half surrogates (bytes that are no UTF-8) and
    characters that turn the direction of writing, except for those to keep.
    """
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode()
        for c in str(text)
    )


def reason(error: Exception) -> str:
    """Say why a file cannot be used, without the number and path that Python adds."""
    return getattr(error, "strerror", None) or str(error)


def unforeseen(error: BaseException) -> str:
    """Describe an error that the app did not foresee, in one line."""
    if isinstance(error, MemoryError):
        return "there is too little memory; give the run more, or close other programs"
    text = " ".join(printable(error, keep="\n").split())
    return (
        f"unexpected {type(error).__name__}: {text or 'no message'}. This is a fault of the app: "
        "please report it to its developers, with the run's log"
    )


def few(names: Iterable[str], most: int = 3) -> str:
    """List the first of some names and count the others: ``"01, 02, 03 and 5 more"``."""
    ordered = sorted(set(names))
    more = len(ordered) - most
    listed = ", ".join(ordered[:most]) or "none"
    return f"{listed} and {more} more" if more > 0 else listed


def listing(what: str, found: Iterable[str | None]) -> str:
    """List the values of something: ``"sessions 1, 2 or none"``, ``"no session"``."""
    known = set(found)
    named = [value for value in known if value is not None]
    if not named:
        return f"no {what}"
    plural = "s" if len(named) > 1 else ""
    return f"{what}{plural} {few(named, 10)}{' or none' if None in known else ''}"
