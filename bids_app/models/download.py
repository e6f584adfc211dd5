"""Downloads over HTTP that resume after an interruption, also in a later run.

pooch checks digests and skips files that are complete; this module adds resuming, retries and
progress. Incomplete files are named ``<name>.part``. Beside each, ``<name>.part.json`` records
where it came from and which version of it the server had. The rest is requested with Range and
If-Range (RFC 9110, sections 13.1.5 and 14.2), so that parts of two versions are never joined. If
the server does not support this, the whole file is downloaded again. No more is taken than the file
has, and a server that sends too slowly counts as one that does not answer.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pooch
import requests
import urllib3

from bids_app.errors import ModelError, OutputError, UsageError
from bids_app.io.files import is_file, is_web_page, open_part, status, write_atomic
from bids_app.io.progress import Progress
from bids_app.io.tables import load_json
from bids_app.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

ATTEMPTS = 5  # in a row without receiving any data
CHUNK = 2**16  # bytes
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)  # HTTP status that a retry may fix
_TIMEOUT = (10, 60)  # seconds to connect, and between two bytes
_MEGABYTE = 1_000_000
LARGEST = 8 * 2**30  # bytes of a file whose size neither the registry nor the server states
SLOWEST, WINDOW = 1000, 30  # bytes a second, on average over so many seconds


def download(url: str, path: Path, size: int | None = None, digest: str | None = None) -> None:
    """Download a file, unless an earlier call completed it.

    Parameters
    ----------
    url : str
    path : Path
    size : int, optional
        Of the published file in bytes.
    digest : str, optional
        Of the published file, as ``sha256:...`` or ``md5:...``.

    Raises
    ------
    ModelError
        The server cannot be reached, does not have the file, or has a different one.
    OutputError
        The file cannot be written.
    UsageError
        The address, or the proxy or certificate file of the environment, is not valid.
    """
    pooch.get_logger().setLevel("WARNING")  # its messages address programmers
    try:
        pooch.retrieve(url, digest, path.name, path.parent, downloader=_Downloader(path, size))
    except ValueError:
        raise ModelError(
            f"{path.name}: the file from {without_password(url)} is not the published file; its "
            "digest differs."
        ) from None
    except OSError as error:
        raise OutputError(
            f"{path.parent}: cannot be written ({error.strerror}). The part of {path.name} that "
            "was downloaded is kept. Free some space, then run the same command again to resume."
        ) from None


def check_address(url: str) -> None:
    """Check that an address uses HTTP and names a host.

    Raises
    ------
    UsageError
        It does not.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:  # not printed, as it may hold a password
        raise UsageError("--url: the address must begin with http:// or https://, and name a host.")


def without_password(url: str) -> str:
    """Address for messages, without a user name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


class _RetryError(Exception):
    """An attempt failed, but another one may succeed."""

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class _Origin:
    """Where a partial file came from: address, ETag or date of its version, total size."""

    url: str
    version: str
    total: int | None


class _Downloader:
    """Downloads one file; called as pooch calls its downloaders."""

    def __init__(self, path: Path, size: int | None) -> None:
        self._name, self._size = path.name, size
        self._part = path.with_name(f"{path.name}.part")
        self._note = path.with_name(f"{path.name}.part.json")

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        try:
            self._try_repeatedly(url)
        except KeyboardInterrupt:
            self._say(
                f"stopped after {self._received():,} bytes. Run the same command again to resume."
            )
            raise
        self._part.replace(output_file)
        self._note.unlink(missing_ok=True)

    def _try_repeatedly(self, url: str) -> None:
        failures = 0
        while True:
            before = self._received()
            try:
                self._attempt(url)
            except (_RetryError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
                reason = _reason_to_retry(error, url)
                failures = 1 if self._received() >= before + CHUNK else failures + 1
                if failures == ATTEMPTS:
                    origin = self._origin(url)
                    size = f" of {origin.total:,}" if origin and origin.total else ""
                    raise ModelError(
                        f"{self._name}: {reason}; {ATTEMPTS} attempts failed. Received "
                        f"{self._received():,}{size} bytes."
                    ) from None
                wait = max(2.0 ** (failures - 1), getattr(error, "wait", 0))
                self._say(f"{reason}; retry in {wait:.0f} s, {self._received():,} bytes received")
                time.sleep(wait)
            else:
                return

    def _attempt(self, url: str) -> None:
        origin = self._origin(url)
        start = self._received() if origin and origin.version else 0
        if origin is None or origin.total is None or start != origin.total:
            headers = {
                "User-Agent": f"brainstem-bids-app/{__version__}",
                "Accept-Encoding": "identity",
            }
            if origin and start:
                headers |= {"Range": f"bytes={start}-", "If-Range": origin.version}
            with _get(url, headers) as response:
                origin = self._accept(response, url, origin, start)
                self._receive(response, origin, start if response.status_code == 206 else 0)
        self._check(origin)

    def _accept(
        self, response: requests.Response, url: str, origin: _Origin | None, start: int
    ) -> _Origin:
        """Check that a response holds the file, or the missing part of it."""
        status = response.status_code
        if status in _TRANSIENT:
            wait = response.headers.get("Retry-After", "")
            raise _RetryError(
                f"the server answered {status}", min(int(wait), 60) if wait.isdigit() else 0
            )
        if status == 416 or (status == 206 and not _continues(response, start, origin)):
            self._discard()
            raise _RetryError("the server sent another part of the file than requested")
        if status == 206 and origin:
            return origin
        if status != 200:
            raise ModelError(
                f"{self._name}: the server answered {status} for {without_password(url)}."
            )
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        self._discard()
        if self._size is not None and total not in (None, self._size):
            raise ModelError(
                f"{self._name}: the server's file has {total:,} bytes, but the published file has "
                f"{self._size:,}."
            )
        # A weak ETag does not identify the bytes, and must not be sent with If-Range.
        tag = response.headers.get("ETag", "")
        version = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
        new = _Origin(without_password(url), version, total)
        write_atomic(self._note, json.dumps(asdict(new)).encode())
        return new

    def _receive(self, response: requests.Response, origin: _Origin, start: int) -> None:
        total = origin.total if origin.total is not None else self._size
        if total is not None and total - start > (
            free := shutil.disk_usage(self._part.parent).free
        ):
            raise OutputError(
                f"{self._part.parent}: {self._name} needs {total - start:,} more bytes, but only "
                f"{free:,} are free. Free some space, then run the same command again."
            )
        megabytes = round((total or 0) / _MEGABYTE)
        self._say(f"downloading{f' {megabytes} MB' if total else ''}")
        with (
            open_part(self._part, append=bool(start)) as stream,
            Progress(self._say if total else None, "MB", start=start / _MEGABYTE) as progress,
        ):
            most = self._size or origin.total or LARGEST
            since, before = time.monotonic(), start
            # Raw bytes as they come: an encoding that the server claims is not undone.
            while chunk := response.raw.read1(CHUNK, decode_content=False):
                start += len(chunk)
                if start > most:
                    self._discard()
                    raise ModelError(
                        f"{self._name}: the server sends more than the {most:,} bytes of the file."
                    )
                stream.write(chunk)
                progress.add(len(chunk) / _MEGABYTE, megabytes)
                if (now := time.monotonic()) - since >= WINDOW:
                    if start - before < SLOWEST * WINDOW:
                        raise _RetryError(f"less than {SLOWEST} bytes a second come")
                    since, before = now, start

    def _check(self, origin: _Origin) -> None:
        """Check that the file is complete and has the size and digest that the server states."""
        received = self._received()
        wanted = self._size if self._size is not None else origin.total
        stated = re.fullmatch(r'"md5:([0-9a-f]{32})"', origin.version)  # Zenodo's ETag
        if is_web_page(self._part):
            problem = (
                f"{origin.url} returned a web page, not the file. Is it a login page, or the "
                "portal of a network? Open the address in a browser."
            )
        elif origin.total is not None and received < origin.total:
            raise _RetryError("the connection was lost")
        elif wanted is not None and received != wanted:
            problem = f"received {received:,} bytes instead of {wanted:,}. Try again."
        elif stated and pooch.file_hash(self._part, alg="md5") != stated[1]:
            problem = "damaged in transit: its MD5 is not the server's. Try again."
        else:
            return
        self._discard()
        raise ModelError(f"{self._name}: {problem}")

    def _origin(self, url: str) -> _Origin | None:
        try:
            origin = _Origin(**load_json(self._note))
        except (OSError, ValueError, TypeError):
            return None
        return origin if origin.url == without_password(url) else None

    def _received(self) -> int:
        return status(self._part).st_size if is_file(self._part) else 0

    def _discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _say(self, line: str) -> None:
        print(f"{self._name}: {line}", file=sys.stderr, flush=True)


def _get(url: str, headers: dict[str, str]) -> requests.Response:
    try:
        return requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT)
    except requests.RequestException:
        raise
    except OSError as error:  # a file of certificates that does not exist
        raise UsageError(f"REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE: {error}") from None


def _continues(response: requests.Response, start: int, origin: _Origin | None) -> bool:
    stated = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if origin is None or stated is None or int(stated[1]) != start:
        return False
    return origin.total is None or stated[2] in ("*", str(origin.total))


def _reason_to_retry(error: Exception, url: str) -> str:
    """Describe why an attempt failed; raise if another attempt cannot succeed."""
    host = urlsplit(url).hostname
    if isinstance(error, _RetryError):
        return str(error)
    if isinstance(error, requests.exceptions.SSLError):
        raise ModelError(
            f"The certificate of {host} is not trusted. Behind a proxy that inspects connections, "
            "set REQUESTS_CA_BUNDLE to a file with the proxy's certificate."
        ) from None
    if isinstance(error, requests.TooManyRedirects):
        raise ModelError(f"{without_password(url)} redirects in a circle.") from None
    if isinstance(error, ValueError):  # how requests reports an invalid address
        raise UsageError(
            f"{without_password(url)}: the address is not valid, or http_proxy, https_proxy or "
            "all_proxy is not the address of an HTTP proxy, such as http://proxy.example:3128."
        ) from None
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy cannot be reached, or refuses"
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return f"{host} does not respond"
    if isinstance(error, requests.exceptions.ChunkedEncodingError | urllib3.exceptions.HTTPError):
        return "the connection was lost"
    return f"{host} cannot be reached"
