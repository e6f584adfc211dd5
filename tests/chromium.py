"""Chromium without a window, driven over the DevTools protocol through a pair of pipes.

Needs nothing but a Chromium (or Chrome) of the system. Protocol: JSON messages that end in a NUL
byte, read by the browser from file descriptor 3 and written to 4 (``--remote-debugging-pipe``);
https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_S = 120.0
AXE = os.environ.get("AXE_CORE")  # path of axe.min.js of the npm package axe-core
# Software rendering, so that WebGL is there without a GPU; no name of the network resolves.
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def find_chromium() -> str | None:
    """Find a browser on this machine."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """A browser with one page; ends with the ``with`` block.

    Attributes
    ----------
    faults : list of str
        Errors and warnings of the console, exceptions, refusals by the page's own policy.
    requests : list of str
        Addresses asked for, without those inside the page (``data:``, ``blob:``).
    """

    def __init__(self, command: str, profile: Path) -> None:
        self.faults: list[str] = []
        self.requests: list[str] = []
        self._count = 0
        self._unread = b""
        self._loaded = False
        to_browser, self._write_end = os.pipe()
        self._read_end, from_browser = os.pipe()
        # Out of the way of 3 and 4, which the browser's ends become.
        ends = [os.dup2(end, end + 100) for end in (to_browser, from_browser)]

        def place() -> None:
            for end, number in zip(ends, (3, 4), strict=True):
                os.dup2(end, number)

        self._process = subprocess.Popen(
            [command, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=place,
            pass_fds=(3, 4, *ends),
        )
        for end in (to_browser, from_browser, *ends):
            os.close(end)
        self._session = ""
        targets = self.call("Target.getTargets")["targetInfos"]
        [target] = [t["targetId"] for t in targets if t["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._session = ""
        try:
            self.call("Browser.close")
            self._process.wait(20)
        except (OSError, EOFError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._write_end)
        os.close(self._read_end)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol and wait for its answer."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write_end, json.dumps(message).encode() + b"\0")
        while (answer := self._next(method)).get("id") != self._count:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, page: Path) -> None:
        """Open a file, and wait until it is loaded; faults and requests begin anew."""
        self.faults.clear()
        self.requests.clear()
        self._loaded = False
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not self._loaded:
            self._note(self._next("load"))

    def run(self, script: str) -> Any:
        """Evaluate JavaScript, wait for its promise if it is one, and give its value."""
        answer = self.call(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script[:200]}: {_told(answer['exceptionDetails'])}")
        return answer["result"].get("value")

    def wait_for(self, condition: str, seconds: float = TIMEOUT_S) -> None:
        """Wait until a JavaScript expression holds."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise TimeoutError(f"{condition} does not hold; faults: {self.faults}")
            time.sleep(0.1)

    def press(self, key: str) -> None:
        """Press and release a key with a name, such as ``Tab`` or ``Enter``."""
        codes = {"Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowRight": 39}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        common = {"key": key, "windowsVirtualKeyCode": codes.get(key, 0)}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        """Set the size of the window in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Save what the window shows, or the whole page, as PNG."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def axe(self, script: Path) -> list[str]:
        """Give the faults that axe-core finds in the page, each with the place of the first.

        All that is folded is opened before.
        """
        self.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        self.run(script.read_text(encoding="utf-8") + "; true")
        found = self.run(
            "axe.run().then((r) => r.violations.map((v) => "
            "`${v.id} (${v.impact}): ${v.nodes[0].target} ${v.nodes[0].failureSummary}`))"
        )
        return list(found)

    def _next(self, waiting_for: str) -> dict[str, Any]:
        end = time.monotonic() + TIMEOUT_S
        while b"\0" not in self._unread:
            if not select.select([self._read_end], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError(f"no answer to {waiting_for}; faults: {self.faults}")
            if not (data := os.read(self._read_end, 1 << 20)):
                raise EOFError("the browser has ended")
            self._unread += data
        message, self._unread = self._unread.split(b"\0", 1)
        content: dict[str, Any] = json.loads(message)
        return content

    def _note(self, event: dict[str, Any]) -> None:
        method, told = event.get("method", ""), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.faults.append(_told(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning"):
            words = (str(a.get("value", a.get("description", ""))) for a in told["args"])
            self.faults.append(" ".join(words))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.faults.append(told["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            address = told["request"]["url"]
            if not address.startswith(("data:", "blob:")):
                self.requests.append(address)


def _told(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description") or details.get("text"))
