"""The log: one line of JSON per event, whatever is in it."""

import json
import logging
from datetime import datetime, timezone
from enum import Enum, IntEnum
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import defer
from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher, globalLogPublisher
from twisted.python import log as old_log
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.observe.logs import forward_stdlib_logging, line_observer
from whatsapp_egress.observe.redaction import REDACTED, Redactor


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


class Colour(Enum):
    RED = 1


class Number(IntEnum):
    ONE = 1


@attrs.frozen
class Record:
    name: str
    _access_token: str
    hidden: str = attrs.field(default="hidden", repr=False)
    to: str = "919876543210"


class LogTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.written: list[bytes] = []
        self.redactor = Redactor()

    def observer(self, level: str = "debug", pii: bool = False) -> ILogObserver:
        return line_observer(
            self.written.append, level=level, pii=pii, redactor=self.redactor, version="1.2.3"
        )

    def log(self, namespace: str = "whatsapp_egress.x", *, level: str = "debug", pii: bool = False) -> Logger:
        return Logger(namespace, observer=LogPublisher(self.observer(level, pii)))

    def line(self) -> dict[str, Any]:
        (line,) = self.written
        assert line.endswith(b"\n")
        assert len(line.decode("utf-8").splitlines()) == 1
        self.written.clear()
        decoded: dict[str, Any] = json.loads(line)
        return decoded

    def shown(self, name: str, value: object, pii: bool = False) -> Any:
        self.log(pii=pii).info("event_name", **{name: value})
        return self.line()[name]


class LineTests(LogTestCase):
    def test_a_line_begins_with_when_how_grave_who_and_what(self) -> None:
        self.observer()(
            {
                "log_format": "message_delivered",
                "log_level": LogLevel.info,
                "log_time": 1700000000.0625,
                "log_namespace": "whatsapp_egress.observe.journal",
                "tenantId": "t-1",
                "duration": 12.5,
            }
        )

        assert list(self.line().items()) == [
            ("timestamp", "2023-11-14T22:13:20.062Z"),
            ("level", "INFO"),
            ("service", "whatsapp-egress"),
            ("version", "1.2.3"),
            ("event", "message_delivered"),
            ("tenantId", "t-1"),
            ("duration", 12.5),
        ]

    def test_levels_have_the_names_of_the_contract(self) -> None:
        log = self.log()
        for write in (log.debug, log.info, log.warn, log.error, log.critical):
            write("x")

        assert [json.loads(line)["level"] for line in self.written] == [
            "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL",
        ]  # fmt: skip

    def test_what_is_below_the_level_is_not_written(self) -> None:
        log = self.log(level="warn")
        log.debug("a")
        log.info("b")
        log.warn("c")

        assert self.line()["event"] == "c"

    def test_a_field_without_a_value_is_left_out(self) -> None:
        self.log().info("x", wamid=None)

        assert "wamid" not in self.line()

    def test_a_field_does_not_take_the_place_of_the_head(self) -> None:
        self.log().info("x", service="other", event="other")
        line = self.line()

        assert (line["service"], line["event"]) == ("whatsapp-egress", "x")
        assert (line["service_"], line["event_"]) == ("other", "other")

    def test_a_reader_that_has_gone_is_no_error(self) -> None:
        def write(_line: bytes) -> None:
            raise BrokenPipeError

        line_observer(write, level="info", pii=False, redactor=self.redactor, version="1")(
            {"log_format": "x"}
        )

    def test_an_event_with_nothing_in_it_is_a_line(self) -> None:
        self.observer()({})

        assert self.line()["event"] == "log"


class ForeignTests(LogTestCase):
    def test_what_twisted_says_is_a_message_with_its_logger(self) -> None:
        self.log("twisted.web").warn("{count} {things} from 919876543210", count=3, things="times")
        line = self.line()

        assert (line["event"], line["level"]) == ("log", "WARNING")
        assert (line["message"], line["logger"]) == ("3 times from ***3210", "twisted.web")
        assert "count" not in line

    def test_a_word_that_somebody_else_logs_is_not_an_event(self) -> None:
        self.redactor.know("abcdefgh")
        self.log("other").info("abcdefgh")

        assert self.line()["message"] == REDACTED

    def test_a_sentence_of_ours_is_a_message_too(self) -> None:
        self.log().info("hello {name}", name="you")

        assert self.line()["message"] == "hello you"

    def test_an_event_that_can_not_be_formatted_is_still_a_line(self) -> None:
        self.log("other").info("{missing}")

        assert "missing" in self.line()["message"]

    def test_twisteds_old_log_comes_through(self) -> None:
        publisher = old_log.LogPublisher(
            publishPublisher=(new := LogPublisher(self.observer())), observerPublisher=new
        )
        publisher.msg("old words")
        assert self.line()["message"] == "old words"

        publisher.msg(failure=Failure(ValueError("broken")), why="doing", isError=1)
        line = self.line()
        assert (line["level"], line["message"], line["exception"]) == ("CRITICAL", "doing", "ValueError")

    def test_the_standard_librarys_logging_comes_through_from_warnings_up(self) -> None:
        events: list[dict[str, Any]] = []
        self.patch(logging.getLogger(), "handlers", [])
        undo = forward_stdlib_logging()
        globalLogPublisher.addObserver(events.append)  # type: ignore[arg-type]
        try:
            logger = logging.getLogger("pika.test")
            logger.info("quiet")
            logger.warning("loud %s", "words")
            logger.error("bad %d", "format")
            try:
                raise ValueError("broken")
            except ValueError:
                logger.critical("failed", exc_info=True)
        finally:
            globalLogPublisher.removeObserver(events.append)  # type: ignore[arg-type]
            undo()
            self.flushLoggedErrors(ValueError)
        observer = self.observer()
        for event in events:
            observer(event)
        lines = [json.loads(line) for line in self.written]

        assert [(line["level"], line["message"], line["logger"]) for line in lines] == [
            ("WARNING", "loud words", "pika.test"),
            ("ERROR", "bad %d", "pika.test"),
            ("CRITICAL", "failed", "pika.test"),
        ]
        assert lines[2]["exception"] == "ValueError"


class FailureTests(LogTestCase):
    def failed(self, error: BaseException, cause: BaseException | None = None) -> Failure:
        def inner(secret_local: str) -> None:
            raise error from cause

        try:
            inner("a local value")
        except BaseException:  # noqa: BLE001 - any error will do
            return Failure(captureVars=True)
        raise AssertionError

    def test_it_brings_its_class_its_message_and_where_it_was(self) -> None:
        self.log().failure("task_failed", self.failed(ValueError("no good")), tenantId="t")
        line = self.line()

        assert (line["event"], line["level"], line["tenantId"]) == ("task_failed", "CRITICAL", "t")
        assert (line["exception"], line["message"]) == ("ValueError", "no good")
        assert "in inner" in line["traceback"]

    def test_no_local_variable_is_in_it_even_when_twisted_debugs(self) -> None:
        defer.setDebugging(True)
        self.addCleanup(defer.setDebugging, False)
        failed = defer.Deferred[None]()
        log = self.log()
        failed.addErrback(lambda failure: log.failure("task_failed", failure))
        failed.errback(self.failed(ValueError("no good")))

        assert b"a local value" not in self.written[0]

    def test_secrets_and_numbers_in_message_and_traceback_are_taken_out(self) -> None:
        self.redactor.know("tok-123")
        cause = OSError("to 919876543210 with tok-123")
        self.log().failure("task_failed", self.failed(ValueError("Bearer abc tok-123"), cause))
        line = self.line()

        assert line["message"] == f"Bearer {REDACTED} {REDACTED}"
        assert f"because of OSError: to ***3210 with {REDACTED}" in line["traceback"]

    def test_an_error_that_can_not_be_shown_is_still_a_line(self) -> None:
        class Sad(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no")

        self.log().failure("task_failed", self.failed(Sad()))

        assert self.line()["exception"].endswith("Sad")

    def test_a_deep_stack_is_cut_in_the_middle(self) -> None:
        def deep(level: int) -> None:
            if level:
                deep(level - 1)
            raise ValueError("deep")

        try:
            deep(200)
        except ValueError:
            self.log().failure("x", Failure())

        assert "more ..." in self.line()["traceback"]

    def test_a_failure_among_the_fields_is_shown_like_one(self) -> None:
        self.log().error("x", failure=self.failed(ValueError("no good")))

        assert self.line()["exception"] == "ValueError"

    def test_a_message_that_is_given_stays(self) -> None:
        self.log().failure("x", self.failed(ValueError("no good")), message="ours")

        assert self.line()["message"] == "ours"


class ValueTests(LogTestCase):
    def test_every_kind_of_value_is_json(self) -> None:
        for value, shown in (
            (True, True),
            (2**63 - 1, 2**63 - 1),
            (10**5000, "<an integer of 16610 bits>"),
            (float("nan"), "nan"),
            (float("-inf"), "-inf"),
            (b"bytes \xff", "bytes \\xff"),
            ((1, "a"), [1, "a"]),
            ({1}, [1]),
            (Colour.RED, "RED"),
            (Number.ONE, "ONE"),
            (datetime(2026, 1, 2, tzinfo=timezone.utc), "2026-01-02T00:00:00+00:00"),
            (ValueError("bad"), "ValueError: bad"),
            (Failure(ValueError("bad")), "ValueError: bad"),
            ({1: {"a": None}}, {"1": {"a": None}}),
            ("\ud800", "\\ud800"),
            (Record("n", "t"), {"name": "n", "access_token": REDACTED, "to": "***3210"}),
        ):
            assert self.shown("x", value) == shown

    def test_line_ends_of_any_kind_are_escaped(self) -> None:
        for end in "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029":
            assert self.shown("x", f"a{end}b") == f"a{end}b"

    def test_an_object_that_can_not_be_shown_is_described(self) -> None:
        assert "Hostile" in self.shown("x", Hostile())
        assert "Hostile" in next(iter(self.shown("x", {Hostile(): 1})))

    def test_what_has_no_end_is_cut(self) -> None:
        endless: list[object] = []
        endless.append(endless)
        assert "…" in json.dumps(self.shown("x", endless), ensure_ascii=False)
        assert len(self.shown("x", "y" * 10**6)) < 20_000
        assert len(json.dumps(self.shown("x", [["y" * 300] * 100] * 100))) < 200_000
        assert len(self.shown("x", {str(n): n for n in range(10_000)})) < 500

    def test_a_secret_across_the_cut_is_taken_out_whole(self) -> None:
        self.redactor.know("tok-1234567890")

        for before in range(15_980, 16_002):
            assert "tok-1" not in self.shown("x", "y" * before + "tok-1234567890" + "z" * 100)

    def test_an_event_that_can_not_be_written_leaves_a_line_that_says_so(self) -> None:
        class Broken(dict[str, object]):
            def items(self) -> Any:
                raise RuntimeError("no items of tok-123")

        self.redactor.know("tok-123")
        self.log().info("message_delivered", x=Broken())
        line = self.line()

        assert (line["event"], line["level"], line["lost"], line["exception"]) == (
            "log_line_lost", "ERROR", "message_delivered", "RuntimeError",
        )  # fmt: skip

    json_like = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
    )

    @settings(deadline=None)
    @given(value=json_like)
    def test_any_value_makes_one_line(self, value: object) -> None:
        self.written.clear()
        self.log().info("event_name", x=value)

        assert self.line()["event"] == "event_name"

    @settings(deadline=None)
    @given(before=st.text(max_size=10), after=st.text(max_size=10))
    def test_a_known_secret_is_in_no_line(self, before: str, after: str) -> None:
        self.written.clear()
        self.redactor.know("Zq'8\n-secret")
        text = f"{before}Zq'8\n-secret{after}"
        self.log().info("event_name", x={text: [text, {text}]}, y=text, tenantId=text, z=ValueError(text))

        assert b"-secret" not in self.written[0]


class NameTests(LogTestCase):
    def test_what_has_the_name_of_a_secret_is_redacted_however_deep(self) -> None:
        for value in ("x", b"x", 7, ["x"], {"a": "b"}):
            assert self.shown("accessToken", value) == REDACTED
        assert self.shown("headers", {"Authorization": ["x"], "a": [{"Set-Cookie": "x"}]}) == {
            "Authorization": REDACTED,
            "a": [{"Set-Cookie": REDACTED}],
        }

    def test_a_number_of_tokens_is_no_secret(self) -> None:
        assert self.shown("tokensAvailable", 79.5) == 79.5
        assert self.shown("tokens", "x") == REDACTED

    def test_phone_numbers_show_their_last_digits(self) -> None:
        for name in ("to", "recipient", "waId", "wa_id", "input", "phone", "phone_number", "from"):
            assert self.shown(name, "919876543210") == "***3210"
        assert self.shown("to", "+91 98765-43210") == "***3210"
        assert self.shown("to", 919876543210) == "***3210"
        assert self.shown("recipient", "US.13491208655302741918") == "***1918"
        assert self.shown("recipient", "abc") == "***"
        assert self.shown("contacts", [{"wa_id": "919876543210"}]) == [{"wa_id": "***3210"}]
        assert self.shown("waiting", {"919876543210": 2}) == {"***3210": 2}

    def test_phone_numbers_in_text_show_their_last_digits(self) -> None:
        for text, shown in (
            ("to 919876543210.", "to ***3210."),
            ("+919876543210", "***3210"),
            ("call +1 (650) 555-1234 now", "call ***1234 now"),
            ("wa_919876543210x", "wa_***3210x"),
            ("%2B919876543210", "%2B***3210"),
        ):
            assert self.shown("detail", text) == shown

    def test_what_only_looks_like_a_phone_number_stays(self) -> None:
        for text in (
            "1234567",
            "1234567890123456",
            "3f2b8c1e-9a4d-4e7f-8b6a-123456789012",
            "wamid.HBgLMTY1MDM4Nzk0MzkVAgARGBI12345678901A=",
            "<X at 0x7f5682112233>",
            "in 4.8112345258 seconds",
            "2026-11-23T10:30:00.000Z",
        ):
            assert self.shown("detail", text) == text

    def test_identifiers_are_shown_as_they_are(self) -> None:
        for name in ("tenantId", "internalId", "phoneNumberId", "wamid", "fbtrace"):
            assert self.shown(name, "106540352242922") == "106540352242922"

    def test_a_secret_is_taken_out_of_an_identifier_too(self) -> None:
        self.redactor.know("tok-123")

        assert self.shown("internalId", "tok-123") == REDACTED

    def test_phone_numbers_are_shown_when_asked_for(self) -> None:
        assert self.shown("to", "919876543210", pii=True) == "919876543210"
        assert self.shown("to", 919876543210, pii=True) == 919876543210
        assert self.shown("detail", "+919876543210", pii=True) == "+919876543210"

    def test_secrets_are_not_shown_when_phone_numbers_are(self) -> None:
        assert self.shown("token", "x", pii=True) == REDACTED
