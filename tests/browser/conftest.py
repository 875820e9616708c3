"""A real headless browser, driven through the WebDriver protocol with the standard library alone.

Never skipped for want of a browser: whoever asks for these tests is told what to install.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser.pages import TAB

FOLDER = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DRIVER = "chromedriver"
INSTALL = "apt-get install chromium chromium-driver"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in Path(item.path).parents:
            item.add_marker(pytest.mark.browser)


class Browser:
    """One window. Errors of the browser are raised with its own message."""

    def __init__(self, server: str, binary: str, profile: Path, width: int, height: int, phone: bool) -> None:
        options: dict[str, Any] = {"binary": binary, "args": [*FLAGS, f"--user-data-dir={profile}"]}
        if phone:
            metrics = {"width": width, "height": height, "pixelRatio": 2.0, "touch": True}
            options["mobileEmulation"] = {"deviceMetrics": metrics}
        else:
            options["args"].append(f"--window-size={width},{height}")
        logs = {"goog:loggingPrefs": {"browser": "ALL"}}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, **logs}
        answer = self._ask("POST", f"{server}/session", {"capabilities": {"alwaysMatch": wanted}})
        self.base = f"{server}/session/{answer['sessionId']}"

    def open(self, page: Path) -> None:
        """Load a file and wait until it and all its pictures are there."""
        self._ask("POST", f"{self.base}/url", {"url": page.resolve().as_uri()})

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self._ask("POST", f"{self.base}/execute/sync", {"script": f"return {script}", "args": []})

    def press(self, *keys: str) -> None:
        """Press and let go one key after the other, as a keyboard does (TAB, ENTER, or a character)."""
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        actions = [{"type": "key", "id": "keyboard", "actions": strokes}]
        self._ask("POST", f"{self.base}/actions", {"actions": actions})

    def tab_to(self, element: str, most: int = 200) -> None:
        """Press Tab until the element, a JavaScript expression, has the focus."""
        for _ in range(most):
            self.press(TAB)
            if self.run(f"document.activeElement === {element}"):
                return
        raise AssertionError(f"{most} times Tab do not lead to {element}")

    def messages(self) -> list[str]:
        """What the browser has complained about since the last call."""
        log = self._ask("POST", f"{self.base}/se/log", {"type": "browser"})
        return [f"{entry['level']}: {entry['message']}" for entry in log]

    def prefer(self, scheme: str) -> None:
        """Ask pages for their "light" or "dark" colours."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._command("Emulation.setEmulatedMedia", {"features": features})

    def _command(self, name: str, parameters: dict[str, Any]) -> None:
        self._ask("POST", f"{self.base}/goog/cdp/execute", {"cmd": name, "params": parameters})

    def pdf(self) -> bytes:
        """The page as it would be printed."""
        return base64.b64decode(self._ask("POST", f"{self.base}/print", {"orientation": "landscape"}))

    def close(self) -> None:
        self._ask("DELETE", self.base, None)

    @staticmethod
    def _ask(method: str, address: str, body: Any) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine needs no proxy
        try:
            with opener.open(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode(errors="replace")[:500]) from None


@pytest.fixture(scope="session")
def server() -> Iterator[tuple[str, str]]:
    """(address of a running chromedriver, path of the browser)."""
    binary = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    driver = shutil.which(DRIVER)
    if binary is None or driver is None:
        pytest.fail(f"no browser to test with; as root: {INSTALL}", pytrace=False)
    with subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout:
                if found := re.search(r"started successfully on port (\d+)", line):
                    yield f"http://127.0.0.1:{found[1]}", binary
                    break
            else:
                pytest.fail(f"{driver} did not start", pytrace=False)
        finally:
            process.terminate()


@pytest.fixture(params=[(1200, 900, False), (360, 740, True)], ids=["desktop", "phone"])
def browser(server: tuple[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Browser]:
    """A window of a desktop's width, then one of a phone's."""
    browser = Browser(*server, tmp_path / "profile", *request.param)
    yield browser
    browser.close()
