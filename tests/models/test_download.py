"""Published models are downloaded whole, checked, resumed where cut off, and installed once."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from make_v1_model import write_v1_model

from bids_app.cli import models as cli
from bids_app.errors import ModelError
from bids_app.models import download, install, store
from bids_app.models.manifest import ModelFile, verify

NAME = "nnUNet_brainstem.tar.gz"


class Server(ThreadingHTTPServer):
    """Serves one file; a test sets what goes wrong, request by request.

    Attributes
    ----------
    faults : list
        For the next requests in turn: a status to answer; a number of bytes after which the
        connection is cut, as text; or None for a good answer. Then all is good.
    seen : list of (path, headers)
    ranges, headers : what is offered, and sent with each answer.
    """

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.faults, self.seen = content, [], []
        self.ranges, self.headers = True, {"ETag": '"1"'}
        self.endless = self.slow = False
        self.sent = 0
        self.gate = threading.Event()
        self.gate.set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/files"

    def ranges_asked(self):
        return [headers.get("Range") for _, headers in self.seen]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.seen.append((self.path, dict(self.headers)))
        server.gate.wait(20)
        fault = server.faults.pop(0) if server.faults else None
        if isinstance(fault, int):
            self.send_response(fault)
            self.send_header("Location", "/moved/file")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (None, *server.headers.values())
        if asked and same and server.ranges:
            start = int(asked[1])
            self.send_response(206)
            whole = len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        else:
            self.send_response(200)
        body = server.content[start:]
        if server.endless or server.slow:
            self.end_headers()
            self.talk(server, body)
            return
        self.send_header("Content-Length", str(len(body)))
        for key, value in server.headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[: int(fault)] if fault else body)

    def talk(self, server, body):
        """Without a length: the file again and again, or a byte now and then."""
        try:
            for byte in [body] * 1000 if server.endless else body:
                self.wfile.write(byte if server.endless else bytes([byte]))
                server.sent += 1
                threading.Event().wait(0 if server.endless else 0.01)  # time.sleep is replaced
        except OSError:
            pass

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("v1")
    model = write_v1_model(folder / "Task600_Brainstem" / "plans", base=24, pools=[(2, 2, 2)])
    with tarfile.open(folder / NAME, "w:gz", compresslevel=1) as tar:
        tar.add(model, "3d_fullres/Task600_Brainstem/plans")
    content = (folder / NAME).read_bytes()
    assert len(content) > 6 * download.CHUNK
    return content


@pytest.fixture
def server(archive):
    with Server(archive) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.gate.set()
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Seconds of each wait between attempts, which none of these tests takes."""
    seconds = []
    monkeypatch.setattr(download.time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder for models; no proxy."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("BRAINSTEM_MODELS_DIR", str(folder))
    return folder


def fetch(server, *words):
    return cli.main(["fetch", "mars-nnunet", "--accept-licence", "--url", server.url, *words])


def left(models):
    return sorted(path.name for path in models.iterdir())


def state(models, monkeypatch, **facts):
    """Have the registry know more of the file."""
    registry = store.registry()
    registry["mars-nnunet"]["files"][0].update(facts)
    for module in (store, install):
        monkeypatch.setattr(module, "registry", lambda: registry)


def test_a_model_is_downloaded_imported_and_described(server, models, archive, capsys):
    assert fetch(server) == 0
    assert left(models) == ["mars-nnunet"]
    model = store.find("mars-nnunet")
    verify(model)
    digest = hashlib.sha256(archive).hexdigest()
    assert (model.label, model.mode, model.licence) == ("marsnnunet", "v1", "CC-BY-NC-ND-4.0")
    assert model.sources == (ModelFile(NAME, len(archive), digest),)
    printed = capsys.readouterr().out
    assert digest in printed
    assert "The publisher states no digest" in printed
    assert "non-commercial" in printed
    assert server.seen[0][0] == f"/files/{NAME}"


def test_nothing_is_asked_for_before_the_licence_is_accepted(server, models, capsys):
    assert cli.main(["fetch", "mars-nnunet", "--url", server.url]) == 2
    assert "CC-BY-NC-ND-4.0" in capsys.readouterr().err
    assert server.seen == left(models) == []


def test_what_is_installed_is_checked_and_not_downloaded_again(server, models):
    assert fetch(server) == fetch(server) == 0
    assert len(server.seen) == 1


def test_damaged_files_are_fetched_again(server, models, caplog):
    assert fetch(server) == 0
    (models / "mars-nnunet" / "plans.json").write_text("{}")
    assert fetch(server) == 0
    assert "plans.json does not match model.toml" in caplog.text
    verify(store.find("mars-nnunet"))
    assert len(server.seen) == 2
    assert left(models) == ["mars-nnunet"]


def test_a_folder_without_a_manifest_is_reported_before_the_download(server, models, capsys):
    (models / "mars-nnunet").mkdir()
    assert fetch(server) == 5
    assert f"remove {models / 'mars-nnunet'} first" in capsys.readouterr().err
    assert server.seen == []


@pytest.mark.parametrize("name", ["open", "no-such-model"])
def test_only_published_models_are_fetched(models, name, capsys):
    assert cli.main(["fetch", name, "--accept-licence"]) == 2
    assert "mars-nnunet" in capsys.readouterr().err


def test_a_lost_connection_is_resumed(server, models, archive, capsys):
    half = str(len(archive) // 2)
    server.faults = [half, str(download.CHUNK)]
    assert fetch(server) == 0
    first, second, third = server.ranges_asked()
    assert first is None
    assert 0 < int(second[6:-1]) <= len(archive) // 2
    assert int(third[6:-1]) == int(second[6:-1]) + download.CHUNK
    assert server.seen[1][1]["If-Range"] == '"1"'
    assert "the connection was lost; retry in 1 s" in capsys.readouterr().err


@pytest.mark.parametrize("known", [True, False], ids=["size known", "size unknown"])
def test_a_download_without_an_end_ends_with_the_file(
    server, models, archive, monkeypatch, capsys, known
):
    state(models, monkeypatch, bytes=len(archive) if known else None)
    monkeypatch.setattr(download, "LARGEST", 3 * len(archive))
    server.endless = True
    assert fetch(server) == 5
    most = (1 if known else 3) * len(archive)
    assert f"the server sends more than the {most:,} bytes" in capsys.readouterr().err
    assert server.sent < 100
    assert left(models) == []


def test_a_byte_now_and_then_does_not_keep_a_download_going(
    server, models, monkeypatch, capsys, waits
):
    monkeypatch.setattr(download, "WINDOW", 0.2)
    monkeypatch.setattr(download, "SLOWEST", 10_000)
    server.slow = True
    assert fetch(server) == 5
    assert len(waits) == download.ATTEMPTS - 1
    said = capsys.readouterr().err
    assert "less than 10000 bytes a second come; 5 attempts failed" in said


def test_a_later_fetch_resumes_an_earlier_one(server, models, archive):
    server.faults = [str(len(archive) // 2), *[503] * download.ATTEMPTS]
    assert fetch(server) == 5
    assert left(models) == [".mars-nnunet.download"]
    asked = len(server.seen)
    assert fetch(server) == 0
    assert re.fullmatch(r"bytes=[1-9]\d*-", server.ranges_asked()[asked])
    assert left(models) == ["mars-nnunet"]


def test_a_server_that_sends_less_than_it_states_is_reported_with_both_sizes(
    server, models, archive, capsys
):
    server.faults = [str(1000)] * download.ATTEMPTS * 2
    server.content, server.ranges = archive[:2000], False
    assert fetch(server) == 5
    assert "Received 1,000 of 2,000 bytes." in capsys.readouterr().err


def test_ctrl_c_reports_what_was_received(server, models, archive, monkeypatch, capsys):
    server.faults = [str(len(archive) // 2)]

    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(download.time, "sleep", stop)
    assert fetch(server) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(rf"{NAME}: stopped after [\d,]+ bytes\. Run the same command .*", said)


def test_a_slow_line_may_be_cut_more_often_than_attempts_may_fail(server, models):
    server.faults = [str(download.CHUNK)] * 2 + [500] * 2 + [str(download.CHUNK)] + [500] * 3
    assert fetch(server) == 0


@pytest.mark.parametrize("headers", [{"ETag": '"2"'}, {}, {"ETag": 'W/"1"'}])
def test_parts_of_two_versions_are_never_joined(server, models, archive, headers):
    server.headers = {"ETag": '"1"'} if headers else {}
    server.content = bytes(len(archive))
    server.faults = [str(len(archive) // 2), *[503] * download.ATTEMPTS]
    assert fetch(server) == 5
    server.content, server.headers = archive, headers
    assert fetch(server) == 0


def test_a_server_without_range_requests_sends_the_whole_file_again(server, models, archive):
    server.ranges, server.headers = False, {"Last-Modified": "Sat, 01 Nov 2025 10:00:00 GMT"}
    server.faults = [str(len(archive) // 2)]
    assert fetch(server) == 0
    assert len(server.seen) == 2


def test_versions_are_distinguished_by_date_without_an_etag(server, models, archive):
    server.headers = {"Last-Modified": "Sat, 01 Nov 2025 10:00:00 GMT"}
    server.faults = [str(len(archive) // 2)]
    assert fetch(server) == 0
    assert re.fullmatch(r"bytes=[1-9]\d*-", server.ranges_asked()[1])


def test_an_encoding_that_the_server_claims_changes_no_byte(server, models, archive):
    server.headers["Content-Encoding"] = "gzip"
    assert fetch(server) == 0
    assert store.find("mars-nnunet").sources[0].bytes == len(archive)


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_transient_error_is_retried(server, models, waits, status):
    server.faults = [status, status]
    assert fetch(server) == 0
    assert waits == [1, 2]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_reported_at_once(server, models, status, capsys):
    server.faults = [status]
    assert fetch(server) == 5
    assert len(server.seen) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"answered {status}" in message
    options = f"--accept-licence --models-dir {models}"
    assert f"brainstem-models import mars-nnunet PATH {options}" in message
    assert left(models) == []


def test_retries_end_after_some_attempts(server, models, capsys):
    server.faults = [500] * 20
    assert fetch(server) == 5
    assert len(server.seen) == download.ATTEMPTS
    assert "brainstem-models import mars-nnunet PATH" in capsys.readouterr().err


def test_without_a_network_one_line_says_what_to_do_instead(models, capsys):
    words = ["fetch", "mars-nnunet", "--accept-licence", "--url", "http://127.0.0.1:1/"]
    assert cli.main(words) == 5
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"error: {NAME}: 127.0.0.1 cannot be reached")
    assert f"https://zenodo.org/records/13323293/files/{NAME}" in message
    assert "brainstem-models import mars-nnunet PATH" in message


def test_redirects_are_followed(server, models):
    server.faults = [302, 307]
    assert fetch(server) == 0
    assert [path for path, _ in server.seen] == [f"/files/{NAME}", "/moved/file", "/moved/file"]


def test_a_circle_of_redirects_ends(server, models, capsys):
    server.faults = [302] * 100
    assert fetch(server) == 5
    assert "redirects in a circle" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "nonsense", "http://", "http://[", ""])
def test_other_addresses_are_refused(models, url, capsys):
    assert cli.main(["fetch", "mars-nnunet", "--accept-licence", "--url", url]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert "must begin with http:// or https://" in printed.err
    assert left(models) == []


@pytest.mark.parametrize("ending", ["/", f"/{NAME}"])
def test_the_address_of_the_file_or_its_folder_will_do(server, models, ending):
    server.url += ending
    assert fetch(server) == 0
    assert server.seen[0][0] == f"/files/{NAME}"


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_size_is_refused_before_it_is_downloaded(
    server, models, archive, monkeypatch, change, capsys
):
    state(models, monkeypatch, bytes=len(archive) + change)
    assert fetch(server) == 5
    assert "bytes" in capsys.readouterr().err
    assert not list(models.rglob("*.part"))
    assert not (models / "mars-nnunet").exists()


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_known_digest_is_checked(server, models, archive, monkeypatch, algorithm, capsys):
    digest = hashlib.new(algorithm, archive).hexdigest()
    state(models, monkeypatch, bytes=len(archive), digest=f"{algorithm}:{digest}")
    server.content = archive[:-1] + b"?"
    assert fetch(server) == 5
    assert "not the published file" in capsys.readouterr().err
    assert not list(models.rglob("*.gz*"))
    server.content = archive
    assert fetch(server) == 0
    assert "no digest" not in capsys.readouterr().out


def test_the_digest_that_zenodo_sends_is_checked(server, models, archive, capsys):
    server.headers = {"ETag": f'"md5:{hashlib.md5(archive).hexdigest()}"'}
    server.content = archive[:-1] + b"?"
    assert fetch(server) == 5
    assert "its MD5 is not the server's" in capsys.readouterr().err
    server.content = archive
    assert fetch(server) == 0


def test_a_login_page_instead_of_the_file_is_no_model(server, models, capsys):
    server.content = b"<html>Please log in</html>"
    assert fetch(server) == 5
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"{server.url}/{NAME} returned a web page, not the file" in message
    assert left(models) == []


def test_the_proxy_of_the_environment_is_used(server, models, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_address[1]}")
    address = "http://user:secret@weights.hospital.test/mirror/"
    assert cli.main(["fetch", "mars-nnunet", "--accept-licence", "--url", address]) == 0
    ((path, headers),) = server.seen
    assert path == f"http://weights.hospital.test/mirror/{NAME}"
    assert headers["Authorization"].startswith("Basic ")


@pytest.mark.parametrize("proxy", ["::::nonsense", "http://", "socks5://127.0.0.1:1"])
def test_an_invalid_proxy_is_reported(models, monkeypatch, proxy, capsys):
    monkeypatch.setenv("https_proxy", proxy)
    assert cli.main(["fetch", "mars-nnunet", "--accept-licence"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "https_proxy or all_proxy is not the address of an HTTP proxy" in line


def test_a_missing_certificate_file_is_reported(models, tmp_path, monkeypatch, capsys):
    path = tmp_path / "own.pem"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    words = ["fetch", "mars-nnunet", "--accept-licence", "--url", "https://127.0.0.1:1/"]
    assert cli.main(words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith("error: REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE: ")
    assert str(path) in line


def test_a_password_in_an_address_is_never_printed_or_kept(server, models, capsys):
    server.faults = ["70000", 404]
    server.url = server.url.replace("127.0.0.1", "user:secret@127.0.0.1")
    assert fetch(server) == 5
    printed = capsys.readouterr()
    kept = b"".join(path.read_bytes() for path in models.rglob("*.json"))
    assert "secret" not in printed.out + printed.err + kept.decode()


def test_several_files_are_imported_as_a_folder(server, models, monkeypatch):
    seen = []

    def look(source, *_):
        seen.extend(path.name for path in source.iterdir())
        raise ModelError("seen")

    monkeypatch.setattr("bids_app.models.install.import_model", look)
    assert cli.main(["fetch", "mars-mdgru", "--accept-licence", "--url", server.url]) == 5
    assert sorted(seen) == [
        f"brainstem_140000.{kind}" for kind in ("data-00000-of-00001", "index", "meta")
    ]


def test_too_little_space_is_reported_before_the_download(server, models, monkeypatch, capsys):
    usage = shutil.disk_usage(models)._replace(free=1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    assert fetch(server) == 6
    assert "only 1,000 are free" in capsys.readouterr().err
    assert not (models / "mars-nnunet").exists()


def test_a_disk_that_is_full_only_at_the_import_costs_no_second_download(
    server, models, monkeypatch, capsys
):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        assert fetch(server) == 6
    assert "No space left" in capsys.readouterr().err
    assert left(models) == [".mars-nnunet.download"]
    assert fetch(server) == 0
    assert len(server.seen) == 1


def run(server, **options):
    code = "import sys; from bids_app.cli.models import main; sys.exit(main())"
    words = ["fetch", "mars-nnunet", "--accept-licence", "--url", server.url]
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_full_disk_leaves_what_came_and_nothing_else(server, models, archive):
    limit = len(archive) // 2  # bytes of a file, beyond which writing fails
    process = run(
        server, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 6
    assert errors.splitlines()[-1].startswith("error: ")
    assert "Free some space" in errors
    assert left(models) == [".mars-nnunet.download"]
    assert fetch(server) == 0
    assert re.fullmatch(r"bytes=[1-9]\d*-", server.ranges_asked()[-1])


def test_the_second_of_two_simultaneous_fetches_waits(server, models):
    server.gate.clear()
    first = run(server)
    while not server.seen and first.poll() is None:
        os.sched_yield()
    second = run(server)
    waiting = second.stderr.readline()
    server.gate.set()
    assert "waiting" in waiting
    assert [process.wait(60) for process in (first, second)] == [0, 0]
    assert len(server.seen) == 1
    assert left(models) == ["mars-nnunet"]
    for process in (first, second):
        process.communicate()


def test_a_killed_fetch_does_not_block_a_later_one(server, models):
    server.gate.clear()
    process = run(server)
    while not server.seen and process.poll() is None:
        os.sched_yield()
    process.kill()
    process.communicate()
    server.gate.set()
    assert fetch(server) == 0
    assert left(models) == ["mars-nnunet"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_reported(server, models, capsys):
    models.chmod(0o555)
    assert fetch(server) == 6
    assert "cannot be written" in capsys.readouterr().err
