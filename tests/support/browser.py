"""A headless Chromium that a test drives, where there is one.

Selenium and not Playwright: it is plain Python that speaks the W3C's protocol to the `chromedriver` which Debian ships beside
its `chromium`, in the same version. Playwright wants a browser build of its own, and brings Node.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

_SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-prefers-reduced-motion",
    "about:blank",
)
Found = TypeVar("Found")


class Browser:
    """A page that is looked at. `driver` is Selenium's."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """Take a window of so many CSS pixels, and a liking for light or dark pages."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def all(self, selector: str) -> list[Any]:
        """Return the elements of a CSS selector."""
        return self.driver.find_elements("css selector", selector)  # type: ignore[no-any-return]

    def one(self, selector: str) -> Any:
        """Return the only element of a CSS selector."""
        (element,) = self.all(selector)
        return element

    def until(self, there: Callable[[], Found], seconds: float = 60) -> Found:
        """Wait for something, and return it."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        # a page that is drawn anew takes elements away while they are asked
        wait = WebDriverWait(self.driver, seconds, 0.1, ignored_exceptions=(StaleElementReferenceException, ValueError))
        return wait.until(lambda _: there())  # type: ignore[no-any-return]

    def press(self, key: str) -> None:
        """Press a key, as Selenium's `Keys` name it."""
        from selenium.webdriver.common.keys import Keys

        self.driver.switch_to.active_element.send_keys(getattr(Keys, key))

    def requests(self) -> list[str]:
        """Return what was asked for since the last call, but for addresses that hold their data and the browser's own."""
        asked = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.append(message["params"]["request"]["url"])
        return [url for url in asked if not url.startswith(("data:", "blob:", "about:", "chrome"))]

    def complaints(self) -> list[str]:
        """Return the errors that the page's console got since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser with a profile of its own; skip the test, with the reason, where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (pip install selenium)")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no browser here (Debian: apt-get install chromium chromium-driver)")
    profile = tempfile.mkdtemp(prefix="pretrainps-browser-")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for switch in (f"--user-data-dir={profile}", *_SWITCHES):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield Browser(started)
    finally:
        started.quit()
        shutil.rmtree(Path(profile), ignore_errors=True)
