# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium without network, asked over its DevTools pipe: ``with Browser(chromium) as b: b.open(path)``.

What the page asked for, and what it told the console, is kept; so a test can say that it was nothing.

Source: chromedevtools.github.io/devtools-protocol; Chromium's content/browser/devtools/devtools_pipe_handler.cc (JSON
messages, each followed by a NUL, on file descriptors 3 and 4).
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.testbed.chromium import Chromium

OPTIONS: Final = (
    "--headless",
    "--no-sandbox",  # root may not have one; the pages are our own
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # nobody is reached, by name or by address
    "--remote-debugging-pipe",
)
PIPES: Final = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
"""A shell could not: dash has no descriptors above 9."""
END_SECONDS: Final = 20.0
TOLD: Final = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


class Browser:
    """One page at a time.

    Attributes:
        asked: addresses that the open page asked for, itself among them.
        told: what it told the console, errors among that.
    """

    def __init__(self, chromium: Chromium) -> None:
        self._chromium = chromium
        self._number = 0
        self._session = ""
        self._unread = b""
        self.asked: list[str] = []
        self.told: list[str] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True))
            )
            ours, theirs = os.pipe(), os.pipe()
            stack.callback(self._close, ours[1], theirs[0])
            self._out, self._in = ours[1], theirs[0]
            self._log = folder / "log"
            started = [str(self._chromium.program), *OPTIONS, f"--user-data-dir={folder}/profile"]
            with self._log.open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-c", PIPES, str(ours[0]), str(theirs[1]), *started],
                    env=self._chromium.environment(),
                    pass_fds=(ours[0], theirs[1]),
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                )
            stack.callback(self._end, process)
            for one in (ours[0], theirs[1]):
                os.close(one)
            target = self._ask("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self._ask(f"{domain}.enable")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @staticmethod
    def _close(*descriptors: int) -> None:
        for one in descriptors:
            os.close(one)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    # --- what a test does

    def open(self, page: Path) -> None:
        """Open a file, and wait until it is loaded."""
        self.asked, self.told = [], []
        self._ask("Page.navigate", url=page.absolute().as_uri())
        self._await("Page.loadEventFired")

    def look(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Be a window of this size, on a system with light or dark colors."""
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[feature])

    def value(self, expression: str) -> Any:
        """Return what a JavaScript expression is; the page's own policy does not bind it."""
        answer = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def screenshot(self, *, height: int | None = None) -> bytes:
        """Return a picture as PNG: of the whole page, or of its beginning."""
        size = self._ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        answer = self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(answer["data"])

    # --- the pipe

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        for answer in self._messages():
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
        raise AssertionError("unreachable")

    def _await(self, event: str) -> None:
        for message in self._messages():
            if message.get("method") == event:
                return

    def _messages(self) -> Iterator[dict[str, Any]]:
        while True:
            whole, nul, rest = self._unread.partition(b"\0")
            if not nul:
                part = os.read(self._in, 1 << 20)
                if not part:
                    raise AssertionError(f"Chromium ended:\n{self._log.read_text(errors='replace')[-2000:]}")
                self._unread += part
                continue
            self._unread = rest
            message = json.loads(whole)
            self._keep(message)
            yield message

    def _keep(self, message: dict[str, Any]) -> None:
        method = message.get("method")
        if method == "Network.requestWillBeSent":
            self.asked.append(message["params"]["request"]["url"])
        elif method in TOLD:
            self.told.append(json.dumps(message["params"]))
