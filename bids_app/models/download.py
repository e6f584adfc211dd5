"""Downloads over HTTP that go on where they were cut off, also in a later run.

What has come lies in a file of its own, ``<name>.part``, beside ``<name>.part.json``, which says
where it came from and how the server tells versions of it apart. The rest is asked for with Range
and If-Range (RFC 9110, sections 13.1.5 and 14.2), so that two versions are never joined; of a
server that cannot give a part, or does not tell versions apart, the whole is taken again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import ssl
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from requests.utils import should_bypass_proxies
from tqdm import tqdm

from bids_app import __version__
from bids_app.errors import ModelError, OutputError, UsageError
from bids_app.io.files import is_web_page, write_atomic

ATTEMPTS = 5  # one after the other that bring nothing
PASSING = (408, 425, 429, 500, 502, 503, 504)  # status that may be another one soon
CHUNK = 2**16  # bytes
SECONDS_BETWEEN_LINES = 10
_TIMEOUT = (10, 60)  # seconds to connect, and without a byte


class _CutError(Exception):
    """An attempt ended early; another may do better."""

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class _Origin:
    """Where a partial file came from: address, ETag or date of its version, size of the whole."""

    url: str
    version: str
    total: int | None


class Downloader:
    """Downloads one file, in the way that pooch calls its downloaders.

    Parameters
    ----------
    part : Path
        What has come so far. It stays there until the file is whole.
    size : int, optional
        Of the whole file in bytes, where it is known beforehand.
    """

    def __init__(self, part: Path, size: int | None = None) -> None:
        self._part = part
        self._note = part.with_name(part.name + ".json")
        self._size = size
        self._name = part.name.removesuffix(".part")

    def __call__(self, url: str, output_file: str, pooch: object) -> None:  # noqa: ARG002 - pooch gives it
        """Download the file, with as many attempts as bring something, and move it to its place.

        Parameters
        ----------
        url : str
        output_file : str
            Its place, on the file system of the partial file.
        pooch : object
            Not used.

        Raises
        ------
        ModelError
            The server cannot be reached, does not have the file, or has another one.
        OutputError
            It cannot be written.
        UsageError
            The address is none of HTTP, or a variable for proxy or certificates is wrong.
        """
        try:
            self._download(url)
            self._part.replace(output_file)
            self._note.unlink(missing_ok=True)
        except KeyboardInterrupt:
            _say(
                f"{self._name}: stopped, {self._there():,} bytes are there. Run the same command "
                "again to go on."
            )
            raise
        except OSError as error:
            raise OutputError(
                f"{self._part.parent}: cannot be written ({error.strerror}). What came of "
                f"{self._name} is kept: make space, and run the same command again to go on."
            ) from None

    def _download(self, url: str) -> None:
        if url.startswith("https:"):
            _check_certificates()
        failures = 0
        while True:
            before = self._there()
            try:
                self._attempt(url)
            except (_CutError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
                reason = _reason(error, url)
                failures = 1 if self._there() > before else failures + 1
                if failures == ATTEMPTS:
                    origin = self._origin(url)
                    came = (
                        f" Of the {origin.total:,} bytes that the server states {self._there():,} "
                        "came."
                        if origin and origin.total
                        else ""
                    )
                    raise ModelError(
                        f"{self._name}: {reason}; {ATTEMPTS} attempts failed.{came}"
                    ) from None
                wait = max(2.0 ** (failures - 1), error.wait if isinstance(error, _CutError) else 0)
                there = f"{self._there():,} bytes are there"
                _say(f"{self._name}: {reason}; again in {wait:.0f} s, {there}")
                time.sleep(wait)
            else:
                return

    def _attempt(self, url: str) -> None:
        origin = self._origin(url)
        start = self._there() if origin and origin.version else 0
        if origin is None or origin.total is None or start != origin.total:
            headers = {
                "User-Agent": f"brainstem-bids-app/{__version__}",
                "Accept-Encoding": "identity",
            }
            if origin and start:
                headers |= {"Range": f"bytes={start}-", "If-Range": origin.version}
            with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
                origin = self._accept(response, url, origin, start)
                self._receive(response, origin, append=response.status_code == 206)
        self._check(origin)

    def _accept(
        self, response: requests.Response, url: str, origin: _Origin | None, start: int
    ) -> _Origin:
        """Find out what an answer holds; raise unless it is the file, or just its rest."""
        status = response.status_code
        if status in PASSING:
            wait = response.headers.get("Retry-After", "")
            raise _CutError(
                f"the server answered {status}", min(int(wait), 60) if wait.isdigit() else 0
            )
        if status == 416 or (status == 206 and not _continues(response, start, origin)):
            self._forget()
            raise _CutError("the server gave another part than was asked for")
        if status == 206 and origin:
            return origin
        if status != 200:
            raise ModelError(f"{self._name}: the server answered {status} for {shown(url)}.")
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        if self._size is not None and total not in (None, self._size):
            self._forget()
            raise ModelError(
                f"{self._name}: the server's file has {total:,} bytes, not the {self._size:,} of "
                "the published one."
            )
        # A weak ETag names no bytes, and may not be sent with If-Range.
        tag = response.headers.get("ETag", "")
        version = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
        new = _Origin(shown(url), version, total)
        self._forget()
        write_atomic(self._note, json.dumps(asdict(new)).encode())
        return new

    def _receive(self, response: requests.Response, origin: _Origin, *, append: bool) -> None:
        start = self._there() if append else 0
        if origin.total is not None:
            free = shutil.disk_usage(self._part.parent).free
            if origin.total - start > free:
                raise OutputError(
                    f"{self._part.parent}: {self._name} needs {origin.total - start:,} bytes more, "
                    f"{free:,} are free. Make space, then run the same command again."
                )
        with (
            self._part.open("ab" if append else "wb") as stream,
            _Progress(self._name, start, origin.total) as progress,
        ):
            # The file's own bytes, whatever the server says that they encode.
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                stream.write(chunk)
                progress.add(len(chunk))

    def _check(self, origin: _Origin) -> None:
        """Raise unless the file is whole and, as far as the server tells, right."""
        there = self._there()
        if is_web_page(self._part):
            self._forget()
            raise ModelError(
                f"{self._name}: {origin.url} gave a web page, not the file. A login page, or the "
                "portal of a network? Open the address in a browser."
            )
        if origin.total is not None and there < origin.total:
            raise _CutError("the connection was cut")
        wanted = self._size if self._size is not None else origin.total
        if wanted is not None and there != wanted:
            self._forget()
            raise ModelError(f"{self._name}: {there:,} bytes came, not {wanted:,}. Try again.")
        # Zenodo's ETag is the digest.
        if stated := re.fullmatch(r'"md5:([0-9a-f]{32})"', origin.version):
            with self._part.open("rb") as stream:
                digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
            if digest.hexdigest() != stated[1]:
                self._forget()
                raise ModelError(
                    f"{self._name}: damaged on its way, its MD5 is not the server's. Try again."
                )

    def _origin(self, url: str) -> _Origin | None:
        try:
            origin = _Origin(**json.loads(self._note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return origin if origin.url == shown(url) else None

    def _there(self) -> int:
        try:
            return self._part.stat().st_size
        except FileNotFoundError:
            return 0

    def _forget(self) -> None:
        self._part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


class _Progress:
    """A bar on a terminal, else a line now and then."""

    def __init__(self, name: str, start: int, total: int | None) -> None:
        self._name, self._there, self._total = name, start, total
        self._said = time.monotonic()
        terminal = sys.stderr.isatty()
        self._bar = (
            tqdm(desc=name, initial=start, total=total, unit="B", unit_scale=True)
            if terminal
            else None
        )
        if not terminal:
            _say(f"{name}: downloading {self._state()}")

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, count: int) -> None:
        self._there += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._said > SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            _say(f"{self._name}: {self._state()}")

    def _state(self) -> str:
        whole = "an unknown size" if self._total is None else f"{self._total / 1e6:,.1f} MB"
        return f"{self._there / 1e6:,.1f} of {whole}"


def shown(url: str) -> str:
    """Give an address as it may be printed, without the user and password that it may hold."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _continues(response: requests.Response, start: int, origin: _Origin | None) -> bool:
    stated = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if origin is None or stated is None or int(stated[1]) != start:
        return False
    return origin.total is None or stated[2] in ("*", str(origin.total))


def _reason(error: Exception, url: str) -> str:
    """Say in a few words what cut an attempt; raise if no other attempt can do better."""
    if isinstance(error, _CutError):
        return str(error)
    host = urlsplit(url).hostname
    if isinstance(error, requests.exceptions.SSLError):
        raise ModelError(
            f"The certificate of {host} is not trusted. Behind a proxy that opens connections, "
            "name its certificate with REQUESTS_CA_BUNDLE."
        ) from None
    if isinstance(error, requests.TooManyRedirects):
        raise ModelError(f"{shown(url)} leads in a circle.") from None
    if isinstance(error, ValueError):  # the kinds of requests for a wrong address
        if host and (variable := _proxy_variable(url)):
            raise UsageError(
                f"{variable}: no address of an HTTP proxy, such as http://proxy.example:3128."
            ) from None
        raise UsageError(f"--url {shown(url)}: no address that can be used.") from None
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy cannot be reached, or refuses"
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return f"{host} does not answer"
    if isinstance(error, requests.exceptions.ChunkedEncodingError | urllib3.exceptions.HTTPError):
        return "the connection was cut"
    return f"{host} cannot be reached"


def _check_certificates() -> None:
    """Refuse a file of certificates that cannot be used, which requests tells without a name."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if path := os.environ.get(variable):  # the first that is set is used
            cafile, capath = (None, path) if Path(path).is_dir() else (path, None)
            try:
                ssl.create_default_context(cafile=cafile, capath=capath)
            except OSError as error:
                raise UsageError(
                    f"{variable}: the certificate file {path} cannot be used ({error.strerror})."
                ) from None
            return


def _proxy_variable(url: str) -> str:
    """Name the variable that says which proxy an address is reached by, if one does."""
    if should_bypass_proxies(url, None):
        return ""
    names = (f"{urlsplit(url).scheme}_proxy", "all_proxy")
    return next((n for name in names for n in (name, name.upper()) if os.environ.get(n)), "")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
