"""A real browser without a window: Debian's Chromium, driven by Selenium, for tests that run in a thread."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from twisted.internet.threads import deferToThread

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")

MISSING = "" if CHROMIUM.exists() and DRIVER.exists() else "needs Debian's chromium and chromium-driver"

PATIENCE = 30.0

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

DESKTOP, PHONE = (1280, 900), (360, 740)

T = TypeVar("T")


class Browser:
    """One page at a time."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp()
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS, f"--user-data-dir={self._folder}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))

    def close(self) -> None:
        self.driver.quit()
        shutil.rmtree(self._folder, ignore_errors=True)

    def open(self, url: str, size: tuple[int, int] = DESKTOP, **media: str) -> None:
        """Show a page, as on a screen of this size, to somebody who prefers these media."""
        width, height = size
        self.driver.get("about:blank")
        self.said(), self.asked()  # what an earlier page did is not this one's
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE},
        )
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, holds: Callable[[], T], what: str) -> T:
        return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(lambda _: holds(), what)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])].map(each => each.textContent)", selector
        )
        return found

    def text(self, selector: str) -> str:
        (text,) = self.texts(selector)
        return text

    def press(self, *keys: str) -> None:
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def tab(self) -> WebElement:
        """Go on to the next place that takes the keyboard."""
        self.press(Keys.TAB)
        return self.driver.switch_to.active_element

    def style(self, selector: str, name: str) -> str:
        value: str = self.run(
            "return getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])",
            selector,
            name,
        )
        return value

    def said(self) -> list[str]:
        """What the console got since this was asked last."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def asked(self) -> list[str]:
        """The addresses that were asked for since this was asked last."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]


_browsers: list[Browser] = []


def the_browser() -> Browser:
    """One for all tests of this process; it ends with it."""
    if not _browsers:
        _browsers.append(Browser())
        atexit.register(_browsers[0].close)
    return _browsers[0]


def in_thread(test: Callable[[Any], None]) -> Callable[[Any], Awaitable[None]]:
    """A test that waits for the browser, while the reactor serves what the browser asks for."""

    @wraps(test)
    async def run(self: Any) -> None:
        await deferToThread(test, self)

    return run
