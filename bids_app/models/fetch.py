"""Fetching published models: download, check, import; once for all users of a folder of models."""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import pooch

from bids_app.errors import ModelError, OutputError, UsageError
from bids_app.io.files import lock
from bids_app.models import store
from bids_app.models.download import Downloader, shown
from bids_app.models.install import Credits, import_model, target_folder
from bids_app.models.place import occupant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bids_app.models.store import Model

SECONDS_BETWEEN_LOOKS = 0.5


def fetch_model(name: str, directory: Path | None, url: str | None = None) -> Model:
    """Download a published model and install it.

    A process that finds another one at the same work waits, and takes what that installed. What
    came of a file before a download ended early lies hidden in the folder of models, and is gone
    on from by the next fetch; after success nothing of it is left.

    Parameters
    ----------
    name : str
        A model of the registry that has files there.
    directory : Path or None
        Folder of models; see `store.models_dir`.
    url : str, optional
        Folder of the files elsewhere, such as a mirror; or the address of one of them there.

    Returns
    -------
    Model
        The installed model, verified. If it is there already and whole, nothing is downloaded.

    Raises
    ------
    ModelError
        A file cannot be had, or is not the published one; or the model cannot be imported.
    OutputError
        The folder of models cannot be written.
    UsageError
        No folder of models is named, or the address is none of HTTP.
    """
    target = target_folder(name, directory)
    if (there := _installed(target)) is not None:
        return there
    entry = store.registry()[name]
    folder = target.with_name(f".{name}.download")
    with _alone(target.with_name(f".{name}.fetch.lock")):
        if (there := _installed(target)) is not None:
            return there
        base = (url or entry["url"]).rstrip("/")
        for file in entry["files"]:
            base = base.removesuffix(f"/{file['name']}")
        try:
            for file in entry["files"]:
                _download(file, folder, base)
        except ModelError as error:
            raise ModelError(
                f"{error} Or get {_listed(entry)} in another way, and install it with "
                f"`brainstem-models import {name} PATH {store.install_options(directory)}`."
            ) from None
        finally:
            with suppress(OSError):  # unless something came
                folder.rmdir()
        single = len(entry["files"]) == 1
        source = folder / entry["files"][0]["name"] if single else folder
        credits_ = Credits(entry["licence"], entry["citation"], entry["doi"])
        try:
            model = import_model(source, name, directory, credits_, name)
        except OutputError as error:
            raise OutputError(
                f"{error} What was downloaded is kept: mend that, and run the same command again."
            ) from None
        except ModelError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
        return model


def check_address(url: str) -> None:
    """Refuse an address that nothing can be downloaded from.

    Raises
    ------
    UsageError
        It is none of HTTP.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:  # not printed, as it may hold a password
        raise UsageError("--url: the address must begin with http:// or https://, and name a host.")


def _installed(target: Path) -> Model | None:
    """Give the model that is there, if it is whole; to be fetched anew, if files are damaged."""
    if (model := occupant(target)) is None or store.damage(model):
        return None
    for said in store.unlisted(model):
        raise ModelError(said)
    return model


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process holds a lock, then hold it."""
    told = False
    while True:
        with lock(path) as had:
            if had:
                yield
                return
        if not told:
            print("Another process is fetching this model: waiting for it.", file=sys.stderr)
            told = True
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _download(file: dict[str, Any], folder: Path, base: str) -> None:
    """Download one file, unless an earlier fetch left it there whole."""
    url = urljoin(f"{base}/", file["name"])
    known = file.get("digest")
    pooch.get_logger().setLevel("WARNING")  # it advises programmers
    downloader = Downloader(folder / f"{file['name']}.part", file.get("bytes"))
    try:
        pooch.retrieve(url, known, file["name"], folder, downloader=downloader)
    except ValueError:
        raise ModelError(
            f"{file['name']}: what {shown(url)} gave is not the published file, by its digest."
        ) from None
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}).") from None


def _listed(entry: dict[str, Any]) -> str:
    return ", ".join(shown(urljoin(entry["url"], file["name"])) for file in entry["files"])
