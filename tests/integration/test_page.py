"""The operators' page in a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from selenium.webdriver.common.keys import Keys
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.browser import MISSING, PHONE, Browser, in_thread, the_browser
from tests.integration.world import World, message
from tests.observe.served_page import ServedPage, example

HOSTILE = "<img src=x onerror=\"document.body.dataset.hurt='yes'\"><script>alert(1)</script>"

# The contrast of each text with what is behind it; the lowest, and whose it is.
CONTRAST = """
const light = ([r, g, b]) => {
  const [R, G, B] = [r, g, b].map((x) => ((x /= 255) <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
  return 0.2126 * R + 0.7152 * G + 0.0722 * B;
};
const parts = (color) => color.match(/[\\d.]+/g).map(Number);
const behind = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const color = parts(getComputedStyle(each).backgroundColor);
    if (color.length === 3 || color[3] === 1) return color;
  }
  return [255, 255, 255];
};
let worst = [99, ""];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
  const [one, other] = [light(parts(getComputedStyle(element).color)), light(behind(element))];
  const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  if (contrast < worst[0]) worst = [contrast, element.outerHTML];
}
return worst;
"""

# What reaches beyond the right edge of a phone.
BEYOND = """
const seen = (each) => each.checkVisibility() && !each.closest(".canvas, thead");
const beyond = (each) => seen(each) && each.getBoundingClientRect().right > 360.5;
return [...document.querySelectorAll("main *")].filter(beyond).map((each) => each.outerHTML);
"""

# How many points of the latencies' plot are neither grey nor white.
COLOURED = """
const canvas = document.querySelectorAll("canvas")[2];
const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
let coloured = 0;
for (let at = 0; at < data.length; at += 4) {
  const [least, most] = [Math.min(...data.slice(at, at + 3)), Math.max(...data.slice(at, at + 3))];
  coloured += data[at + 3] > 128 && most - least > 60;
}
return coloured;
"""

JUDGE = """
const [told, done] = arguments;
import("/page/verdict.js").then(({ judge }) => done(judge(told)));
"""


class PageCase(TestCase):
    """A page that tells what is in `self.page`, and the browser."""

    timeout = 120
    skip = MISSING or None

    async def setUp(self) -> None:
        self.page = ServedPage()
        self.addCleanup(self.page.stop)
        self.browser: Browser = await deferToThread(the_browser)

    def open(self, **how: Any) -> None:
        self.browser.open(self.page.url, **how)
        self.browser.until(lambda: len(self.browser.texts("canvas")) == 3, "the plots are drawn")
        self.browser.until(lambda: self.stream() == "live", "it is live")

    def change(self, change: Callable[[], Any]) -> None:
        """Change what is told, not while it is being told."""
        blockingCallFromThread(reactor, change)

    def stream(self) -> str:
        return self.browser.find("body").get_attribute("data-stream") or ""

    def until_text(self, selector: str, part: str) -> None:
        self.browser.until(
            lambda: any(part in text for text in self.browser.texts(selector)), f"{selector} says {part}"
        )

    def tenants(self) -> list[str]:
        return self.browser.texts("tr.lane:not([hidden]) .opener bdi")

    def no_complaints(self) -> None:
        assert self.browser.said() == []


class ShownTests(PageCase):
    @in_thread
    def test_what_is_told_is_shown_and_nothing_is_asked_of_others(self) -> None:
        self.open()
        browser, told = self.browser, self.page.overview

        assert "Tenant Service" in browser.text("#headline")
        assert "hotel-lumen" in browser.text("#headline")
        assert "delta-travel" in "".join(browser.texts("#also li"))
        assert browser.texts("#parts .word") == ["Queue is deep", "Well", "Away", "Well", "4 in trouble"]
        assert browser.texts("#totals .value")[:2] == ["7,077", "11"]
        assert self.tenants() == [lane["tenantId"] for lane in told["lanes"]]
        assert browser.texts(".badge")[0] == "Breaker open"
        row = browser.text("tr.lane:first-child")
        assert "Waits for the circuit breaker" in row
        assert "in 41 s" in row
        assert "Access token has expired (190), 19 s ago" in row
        assert "Get a new access token." in row
        assert len(browser.texts("#letters tbody tr")) == len(told["deadLetters"])
        assert "in doubt" in "".join(browser.texts("#letters tbody tr"))
        assert "sent: 106/s now" in (browser.find(".canvas").get_attribute("aria-label") or "")
        assert browser.driver.title.startswith("✖ It is the Tenant Service")
        asked = browser.asked()
        assert len(asked) > 8
        assert [url for url in asked if not url.startswith(self.page.url)] == []
        self.no_complaints()

    @in_thread
    def test_a_lone_latency_is_seen(self) -> None:
        for name in ("p50Ms", "p95Ms"):
            self.page.series[name] = [None] * 180
        self.open()
        assert self.browser.run(COLOURED) == 0

        def one() -> None:
            self.page.series["p50Ms"][100] = 250

        self.change(one)
        self.browser.until(lambda: self.browser.run(COLOURED) > 0, "a point is drawn")

    @in_thread
    def test_it_is_live(self) -> None:
        self.open()
        self.browser.run("window.row = document.querySelector('tr.lane')")
        self.change(self.page.all_well)
        self.until_text("#headline", "All is well.")

        assert "1,352 messages were sent, and none failed" in self.browser.text("#explained")
        assert self.browser.texts("#parts .word") == ["Well"] * 5
        assert self.browser.driver.title == "All is well."
        assert self.tenants() == ["acme", "lima-clinics", "mike-schools", "november-news"]
        assert not self.browser.run("return row.isConnected")

        def more() -> None:
            self.page.lane("acme")["sentLastMinute"] = 987_654
            self.page.series["sent"][-2] = 5000

        self.change(more)
        self.until_text("tr.lane", "987,654 sent")
        self.until_text(".legend b", "1,000/s")
        self.no_complaints()

    @in_thread
    def test_the_worst_comes_first_but_nothing_moves_under_the_keyboard(self) -> None:
        self.open()
        self.browser.run("document.querySelectorAll('.opener')[3].focus()")

        def worse() -> None:
            lanes = self.page.overview["lanes"]
            lanes.insert(0, lanes.pop())
            lanes[0].update(state="breaker_open")
            lanes.append({**lanes[-1], "tenantId": "newcomer"})

        self.change(worse)
        self.until_text("tr.lane:nth-of-type(25) .badge", "Breaker open")
        assert self.tenants()[-2:] == ["november-news", "newcomer"]
        self.browser.until(lambda: self.tenants()[0] == "november-news", "the worst is first")
        assert self.browser.driver.switch_to.active_element.text == "cielo-telecom"

    @in_thread
    def test_lanes_are_filtered_by_what_they_say(self) -> None:
        self.open()
        field = self.browser.find("#filter")
        for wanted, found in {
            "Acme": ["acme"],
            "throttled": ["cielo-telecom"],
            "okafor": ["bravo-retail"],
            "131047": ["acme"],
            "106540352242937": ["delta-travel"],
        }.items():
            field.clear()
            field.send_keys(wanted)
            self.browser.until(lambda found=found: self.tenants() == found, f"{wanted} gives {found}")
            assert self.browser.text("#shown") == "1 of 13 lanes"
        field.clear()
        field.send_keys("no such thing")
        self.browser.until(lambda: self.tenants() == [], "none fits")
        assert self.browser.find("#lanes table").get_attribute("data-empty") == "No lane fits the filter."
        field.clear()
        self.browser.until(lambda: len(self.tenants()) == 13, "all are there again")

    @in_thread
    def test_text_from_outside_stays_text(self) -> None:
        def hostile() -> None:
            for lane in self.page.overview["lanes"][:3]:
                lane["tenantId"] += HOSTILE
                lane["lastError"].update(title="", detail=HOSTILE, advice=HOSTILE)
                lane["numbers"][0]["phoneNumberId"] = HOSTILE
                lane["waitsFor"]["inWords"] = HOSTILE
            self.page.lane("bravo-retail")["pause"].update(reason=HOSTILE, actor=HOSTILE)
            for letter in self.page.overview["deadLetters"]:
                letter.update(dict.fromkeys(("tenantId", "internalId", "reason", "title", "detail"), HOSTILE))
            self.page.overview["checks"]["tenantService"]["detail"] = HOSTILE
            self.page.overview["version"] = HOSTILE

        self.change(hostile)
        self.open()
        for opener in self.browser.driver.find_elements("css selector", ".opener")[:6]:
            self.browser.run("arguments[0].click()", opener)
        self.until_text("#headline", HOSTILE)
        self.until_text(".details bdi", HOSTILE)
        self.until_text("#letters bdi", HOSTILE)

        assert self.browser.texts("main img, main script, header img") == []
        assert self.browser.find("body").get_attribute("data-hurt") is None
        self.no_complaints()

    @in_thread
    def test_markup_would_be_refused_if_it_were_tried(self) -> None:
        self.open()
        tried = "try { document.body.innerHTML = 'x'; return 'done' } catch (error) { return error.name }"
        assert self.browser.run(tried) == "TypeError"


class BrokenStreamTests(PageCase):
    def until_broken(self) -> None:
        self.browser.until(lambda: self.stream() == "broken", "it tells that the stream is broken")

    @in_thread
    def test_it_tells_and_comes_back(self) -> None:
        self.change(self.page.all_well)
        self.open()
        self.until_text("#headline", "All is well.")
        blockingCallFromThread(reactor, lambda: Deferred.fromCoroutine(self.page.stop()))
        self.until_broken()

        connection = self.browser.text("#connection")
        assert connection.startswith("Not connected since ")
        assert connection.endswith("UTC; the figures are old")
        assert "not connected" in self.browser.text("#headline")
        assert "The figures below are old." in self.browser.text("#explained")
        assert self.browser.texts("#also li") == ["Before that: All is well."]
        assert "All is well" not in self.browser.driver.title
        assert float(self.browser.style("main > section:last-child", "opacity")) < 1

        def elsewhere() -> None:
            self.page.lane("acme")["sentLastMinute"] = 4321
            self.page.start()

        self.change(elsewhere)
        self.browser.until(lambda: self.stream() == "live", "it is live again")
        self.until_text("tr.lane", "4,321 sent")
        assert self.browser.text("#connection") == "Live"
        self.until_text("#headline", "All is well.")
        assert self.browser.style("main > section:last-child", "opacity") == "1"

    @in_thread
    def test_a_refusal_is_not_the_end(self) -> None:
        self.change(self.page.stream.stop)
        self.browser.open(self.page.url)
        self.until_broken()
        assert "The figures" not in self.browser.text("#connection")

        def let_in() -> None:
            self.page.stream._stopped = False

        self.change(let_in)
        self.browser.until(lambda: self.stream() == "live", "it is live")

    @in_thread
    def test_silence_is_noticed(self) -> None:
        self.open()

        def fall_silent() -> None:
            assert self.page.stream._next is not None
            self.page.stream._next.delay(3600)

        self.change(fall_silent)
        self.until_broken()


class WithoutAMouseTests(PageCase):
    @in_thread
    def test_everything_is_reached_in_order(self) -> None:
        self.open()
        browser = self.browser
        skip = browser.tab()
        assert skip.text == "Skip to the lanes"
        assert browser.run("return arguments[0].getBoundingClientRect().top", skip) >= 0
        assert browser.tab().get_attribute("id") == "filter"
        names = [lane["tenantId"] for lane in self.page.overview["lanes"]]
        assert [browser.tab().text for _ in names] == names
        assert browser.style(":focus", "outline-style") == "solid"
        assert browser.tab().text == "How all is, as JSON"

    @in_thread
    def test_a_lane_is_opened_and_stays_so(self) -> None:
        self.open()
        browser = self.browser
        for _ in range(6):
            opener = browser.tab()
        assert opener.text == "cielo-telecom"
        browser.press(Keys.ENTER)
        assert opener.get_attribute("aria-expanded") == "true"
        details = browser.find(f"#{opener.get_attribute('aria-controls')}")
        assert details.is_displayed()
        assert "106540352242959" in details.text
        assert "Slow down: the number has reached its throughput." in details.text

        def change() -> None:
            lane = self.page.lane("cielo-telecom")
            lane["numbers"].pop()
            lane["breaker"].update(failures=2)

        self.change(change)
        browser.until(lambda: "2 failures in a row" in details.text, "what is open is live")
        assert "106540352242959" not in details.text
        assert browser.driver.switch_to.active_element == opener
        browser.press(Keys.SPACE)
        assert opener.get_attribute("aria-expanded") == "false"
        assert not details.is_displayed()

    @in_thread
    def test_the_skip_link_leads_to_the_lanes(self) -> None:
        self.open()
        self.browser.tab()
        self.browser.press(Keys.ENTER)
        assert self.browser.tab().get_attribute("id") == "filter"

    @in_thread
    def test_structure_and_names(self) -> None:
        for size in (None, PHONE):
            self.open(**({"size": size} if size else {}))
            browser = self.browser
            headings = browser.run(
                "return [...document.querySelectorAll('h1, h2, h3')].map(each => Number(each.tagName[1]))"
            )
            assert headings[0] == 1
            assert headings.count(1) == 1
            assert all(later - earlier <= 1 for earlier, later in pairwise(headings))
            assert browser.find("#filter").accessible_name == "Filter"
            table = browser.find("#lanes table")
            assert (table.aria_role, table.accessible_name) == ("table", "Lanes")
            assert browser.find("#lanes tbody tr").aria_role == "row"
            assert browser.find("#lanes tbody td").aria_role == "cell"
            assert browser.find("#lanes th").aria_role == "columnheader"
            assert browser.find("main").aria_role == "main"
            assert browser.find("html").get_attribute("lang") == "en"


class LooksTests(PageCase):
    @in_thread
    def test_it_can_be_read_in_light_and_in_the_dark(self) -> None:
        grounds = set()
        for scheme in ("light", "dark"):
            self.open(prefers_color_scheme=scheme)
            self.browser.run("document.querySelector('.opener').click()")
            grounds.add(self.browser.style("body", "background-color"))
            contrast, whose = self.browser.run(CONTRAST)
            assert contrast >= 4.5, (scheme, whose)
        assert len(grounds) == 2

    @in_thread
    def test_it_fits_on_a_phone(self) -> None:
        def long() -> None:
            lane = self.page.overview["lanes"][0]
            lane["tenantId"] = "x" * 300
            lane["lastError"]["detail"] = "y" * 500
            self.page.overview["deadLetters"][0]["internalId"] = "z" * 300
            lane["deferred"] = 123_456_789

        self.change(long)
        self.open(size=PHONE)
        self.browser.run("document.querySelector('.opener').click()")
        self.until_text(".details", "yyyy")

        assert self.browser.run("return document.documentElement.scrollWidth") == 360
        beyond = self.browser.run(BEYOND)
        assert beyond == []
        self.no_complaints()

    @in_thread
    def test_nothing_moves_for_those_who_want_it_still(self) -> None:
        self.open()
        moves = "return getComputedStyle(document.querySelector('#connection'), '::before').animationName"
        assert self.browser.run(moves) == "breathe"
        self.open(prefers_reduced_motion="reduce")
        assert self.browser.run(moves) == "none"


Change = Callable[[dict[str, Any]], Any]

# What is told, and a part of what the headline makes of it.
VERDICTS: dict[str, Change] = {
    "All is well.": lambda told: None,
    "Starting": lambda told: (told["checks"]["rabbitmq"].update(status="unhealthy"), told.update(uptime=3.0)),
    "It is the broker: nothing is consumed": lambda told: (
        told["checks"]["rabbitmq"].update(status="unhealthy"),
        told["checks"]["metaApi"].update(status="unhealthy"),
    ),
    "It is the broker: nothing can be published": lambda told: told["checks"]["rabbitmq"].update(
        status="degraded"
    ),
    "It is Meta, or the way to it: sending fails for all": lambda told: told["roadBreaker"].update(
        state="open", until=told["startedAt"]
    ),
    "It is Meta, or the way to it: requests fail": lambda told: told["checks"]["metaApi"].update(
        status="unhealthy", detail="HTTP 503"
    ),
    "Meta is slow for everybody": lambda told: told.update(backpressure=["slow"]),
    "The Tenant Service does not answer; nobody": lambda told: told["checks"]["tenantService"].update(
        status="unhealthy", detail="connect"
    ),
    "It is the Tenant Service: acme waits": lambda told: (
        told["checks"]["tenantService"].update(status="unhealthy"),
        told["lanes"][0].update(state="credentials"),
    ),
    "It is us: this worker is too busy": lambda told: told["totals"].update(loopLag=0.7),
    "It is us: this worker holds": lambda told: told.update(backpressure=["bytes"]),
    "1,873 messages wait": lambda told: told["totals"].update(queueDepth=1873),
    "It is one tenant, acme: Meta throttles it": lambda told: told["lanes"][0].update(state="throttled"),
    "It is 2 tenants, each for itself: acme, lima-clinics": lambda told: (
        told["lanes"][0].update(state="breaker_open"),
        told["lanes"][1].update(state="throttled"),
    ),
    "Messages of acme fail: 40": lambda told: told["lanes"][0].update(
        failedLastMinute=40, sentLastMinute=100
    ),
    "30 messages failed in the last minute: 60%": lambda told: told["totals"].update(
        failedLastMinute=30, sentLastMinute=20, errorRate=0.6
    ),
    "acme has more messages": lambda told: told["lanes"][0].update(state="deferring"),
    "acme is paused": lambda told: told["lanes"][0].update(
        state="paused", pause={"reason": "so", "actor": "she", "since": None, "until": None}
    ),
}


class VerdictTests(PageCase):
    @in_thread
    def test_metas_outage_is_not_called_the_trouble_of_each_tenant(self) -> None:
        self.open()
        self.page.all_well()
        told = json.loads(json.dumps(self.page.overview))
        told["roadBreaker"].update(state="half_open")
        told["lanes"][0].update(state="breaker_open")
        told["lanes"][1].update(state="half_open")
        verdict = self.browser.driver.execute_async_script(JUDGE, told)
        assert verdict["headline"].startswith("It is Meta")
        assert verdict["also"] == []

    @in_thread
    def test_whose_trouble_it_is(self) -> None:
        self.open()
        self.page.all_well()
        well = json.dumps(self.page.overview)
        for headline, change in VERDICTS.items():
            told = json.loads(well)
            change(told)
            verdict = self.browser.driver.execute_async_script(JUDGE, told)
            assert headline in verdict["headline"], verdict
            assert "undefined" not in json.dumps(verdict)
            assert "null" not in verdict["explained"]

    @in_thread
    def test_before_anything_was_seen(self) -> None:
        told = example("overview")
        for check in told["checks"].values():
            check.update(status="unknown", latency=None, lastSeen=None, detail=None)
        told["checks"]["rabbitmq"].update(status="unhealthy", queueDepth=None)
        told.update(lanes=[], deadLetters=[], uptime=1.0)
        told["totals"] = dict.fromkeys(told["totals"], 0) | {"oldestSeconds": None, "fairness": 1.0}
        told["totals"].update(queueDepth=None, deadLetterDepth=None)
        for name in ("p50Ms", "p95Ms"):
            self.page.series[name] = [None] * 180

        def nothing() -> None:
            self.page.overview = told

        self.change(nothing)
        self.open()
        assert self.browser.texts("#parts .word")[1:4] == ["Starting", "Not asked yet", "Not asked yet"]
        assert "No lanes" in (self.browser.find("#lanes table").get_attribute("data-empty") or "")
        shown = self.browser.find("main").text
        assert not any(word in shown for word in ("undefined", "null", "NaN"))
        self.no_complaints()


class GatewayTests(World):
    """The page of a whole gateway."""

    timeout = 120
    skip = MISSING or None

    async def setUp(self) -> None:
        await super().setUp()
        self.browser = await deferToThread(the_browser)

    async def shown(self, selector: str, part: str) -> None:
        await deferToThread(
            self.browser.until,
            lambda: any(part in text for text in self.browser.texts(selector)),
            f"{selector} says {part}",
        )

    async def test_it_shows_what_happens_and_no_phone_number(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        gateway = await self.start_gateway()
        await deferToThread(self.browser.open, f"http://127.0.0.1:{gateway.health.port}/")
        await self.shown("#connection", "Live")
        self.upstream.publish(message(tenant, "15550001234", "m-1"))
        self.upstream.publish(b"no message")
        await self.until_settled()
        await self.shown("#totals .value", "1")
        await self.shown("#letters td", "invalid message")
        await self.shown("#parts .word", "Well")

        source = await deferToThread(lambda: self.browser.driver.page_source)
        assert "15550001234" not in source
        assert "EAA" not in source
        assert await deferToThread(self.browser.said) == []

        await self.stop_gateway()
        await self.shown("#connection", "Not connected since")
