"""Takes the pictures of the page for the docs: `python -m tests.integration.pictures`."""

from __future__ import annotations

import base64
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.internet.threads import blockingCallFromThread, deferToThread

from tests.integration.browser import PHONE, the_browser
from tests.observe.served_page import ServedPage

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
WIDE = (1280, 900)


def take(page: ServedPage) -> None:
    browser = the_browser()

    def until_shown() -> None:
        browser.until(lambda: len(browser.texts("canvas")) == 3, "the plots are drawn")
        browser.until(lambda: browser.texts("tr.lane"), "the lanes are there")

    def keep(name: str, size: tuple[int, int], height: int) -> None:
        area = {"x": 0, "y": 0, "width": size[0], "height": height, "scale": 1}
        taken = browser.driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": area}
        )
        (FOLDER / f"page-{name}.png").write_bytes(base64.b64decode(taken["data"]))

    browser.open(page.url, WIDE, prefers_color_scheme="light")
    until_shown()
    browser.run("document.querySelector('.opener').click()")
    keep("light", WIDE, 1480)
    browser.open(page.url, WIDE, prefers_color_scheme="dark")
    until_shown()
    keep("dark", WIDE, 1130)
    browser.open(page.url, PHONE, prefers_color_scheme="light")
    until_shown()
    keep("phone", PHONE, 2900)
    browser.open(page.url, WIDE, prefers_color_scheme="light")
    until_shown()
    blockingCallFromThread(reactor, lambda: Deferred.fromCoroutine(page.stop()))
    browser.until(lambda: "Not connected" in browser.text("#connection"), "it tells that it is not connected")
    keep("broken", WIDE, 560)


async def main() -> None:
    await deferToThread(take, ServedPage())


if __name__ == "__main__":
    react(lambda _reactor: Deferred.fromCoroutine(main()))
