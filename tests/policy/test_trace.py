"""W3C Trace Context, as it comes in headers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.policy import trace
from whatsapp_egress.policy.trace import TraceContext

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


def ids(length: int) -> st.SearchStrategy[str]:
    digits = st.text("0123456789abcdef", min_size=length, max_size=length)
    return digits.filter(lambda text: text.strip("0"))


contexts = st.builds(
    TraceContext,
    ids(32),
    ids(16),
    st.booleans(),
    st.lists(
        st.from_regex(r"[a-z0-9]{1,5}@[a-z]{1,5}=[!-+]{1,5}", fullmatch=True),
        max_size=31,
        unique_by=lambda member: member.split("=")[0],
    ).map(", ".join),
)


def read(parent: object, state: object = None) -> TraceContext | None:
    return trace.trace_of({"traceparent": parent, "tracestate": state})


NO_TRACE: list[object] = [
    "",
    "00",
    PARENT + "-",
    PARENT + "-00",
    PARENT + "\n",
    PARENT + " ",
    " " + PARENT,
    PARENT.upper(),
    PARENT[:-1],
    PARENT.replace("-", "_"),
    f"ff-{TRACE}-{SPAN}-01",
    f"ff-{TRACE}-{SPAN}-01-more",
    f"cc-{TRACE}-{SPAN}-01more",
    f"cc-{TRACE}-{SPAN}-01.a",
    f"0-{TRACE}-{SPAN}-01",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE[1:]}-{SPAN}-01",
    f"00-{TRACE}-{SPAN[1:]}-01",
    f"00-{TRACE[1:]}g-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-0x",
    f"00-{TRACE[1:]}\N{ARABIC-INDIC DIGIT THREE}-{SPAN}-01",
    f"cc-{TRACE}-{SPAN}-01-" + "a" * 1_000_000,
    b"cc-" + b"\xff" * 1_000_000,
    b"\xff" + PARENT.encode()[1:],
    None,
    7,
    [PARENT],
    {"traceparent": PARENT},
]

NO_STATE: list[object] = [
    "",
    "a=" + "x" * 257,
    "a=1,b=" + "x" * 255 + ",c=" + "x" * 255,
    ",".join(f"a{n}=1" for n in range(33)),
    "a=1,a=2",
    "A=1",
    "1=1",
    "a@=1",
    "a",
    "a=",
    "a=1=2",
    "a=1\n",
    "a=1\t,b=2",
    "a=1\r\nb=2",
    "a=\x00",
    "a=\x7f",
    "a=\xe9",
    b"a=\xff",
    7,
    ["a=1"],
]


class ParentTests(SynchronousTestCase):
    def test_text_and_bytes_are_read(self) -> None:
        for parent in (PARENT, PARENT.encode(), bytearray(PARENT.encode())):
            assert read(parent) == TraceContext(TRACE, SPAN, sampled=True)

    def test_of_the_flags_only_the_lowest_counts(self) -> None:
        for flags, sampled in (("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)):
            with self.subTest(flags=flags):
                context = read(f"00-{TRACE}-{SPAN}-{flags}")
                assert context is not None
                assert context.sampled is sampled
                assert context.traceparent == f"00-{TRACE}-{SPAN}-{'01' if sampled else '00'}"

    def test_of_a_version_to_come_the_known_part_is_read_and_passed_on_as_this_version(self) -> None:
        for more in ("", "-", "-what-the-future-brings", "-\u2028"):
            with self.subTest(more=more):
                context = read(f"cc-{TRACE}-{SPAN}-01{more}")
                assert context == TraceContext(TRACE, SPAN, sampled=True)
                assert context.traceparent == PARENT

    def test_what_is_not_valid_is_no_trace(self) -> None:
        for parent in NO_TRACE:
            with self.subTest(parent=str(parent)[:80]):
                assert read(parent, "vendor=1") is None

    def test_without_headers_there_is_no_trace(self) -> None:
        assert trace.trace_of({}) is None
        assert trace.trace_of({"tracestate": "vendor=1"}) is None

    @given(st.one_of(st.text(), st.binary(), st.integers(), st.none(), st.lists(st.text())), st.text())
    def test_anything_may_come(self, parent: object, state: str) -> None:
        context = read(parent, state)
        assert context is None or trace.trace_of(trace.headers(context)) == context

    @given(st.data())
    def test_one_character_that_is_off_makes_no_error(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(PARENT) - 1))
        context = read(PARENT[:at] + data.draw(st.characters()) + PARENT[at + 1 :])
        if context is not None:
            assert len(context.trace_id) == 32
            assert len(context.span_id) == 16
            assert context.trace_id.strip("0")
            assert context.span_id.strip("0")

    @given(st.text("0123456789abcdef", min_size=1, max_size=3), st.text(max_size=20))
    def test_a_version_to_come_is_read_whatever_follows_its_dash(self, version: str, more: str) -> None:
        context = read(f"{version}-{TRACE}-{SPAN}-00-{more}")
        assert (context is not None) == (len(version) == 2 and version not in {"00", "ff"})


class StateTests(SynchronousTestCase):
    def test_the_state_is_passed_on_as_it_came(self) -> None:
        states = [
            "vendor=1",
            "a=1, 2b@c=2,,d=" + "x" * 256,
            "a_-*/= 1 !~",
            ",".join(f"a{n}=1" for n in range(32)),
        ]
        for text in states:
            for state in (text, text.encode()):
                with self.subTest(state=state):
                    context = read(PARENT, state)
                    assert context == TraceContext(TRACE, SPAN, sampled=True, tracestate=text)
                    assert trace.headers(context) == {"traceparent": PARENT, "tracestate": text}

    def test_a_state_that_is_not_fit_is_dropped_and_the_trace_kept(self) -> None:
        for state in NO_STATE:
            with self.subTest(state=str(state)[:80]):
                context = read(PARENT, state)
                assert context == TraceContext(TRACE, SPAN, sampled=True)
                assert trace.headers(context) == {"traceparent": PARENT}

    @given(st.text("a=1,@ *\t", max_size=20))
    def test_what_is_passed_on_is_what_others_can_read(self, state: str) -> None:
        context = read(PARENT, state)
        assert context is not None
        members = [member for part in context.tracestate.split(",") if (member := part.strip(" "))]
        assert all(member.count("=") == 1 for member in members)
        assert len({member.split("=")[0] for member in members}) == len(members)


class WritingTests(SynchronousTestCase):
    def test_nothing_is_written_where_there_is_no_trace(self) -> None:
        assert trace.headers(None) == {}
        assert trace.log_fields(None) == {}

    def test_a_line_of_log_has_both_ids(self) -> None:
        assert trace.log_fields(read(PARENT)) == {"traceId": TRACE, "spanId": SPAN}

    @given(contexts)
    def test_what_is_written_is_read(self, context: TraceContext) -> None:
        assert trace.trace_of(trace.headers(context)) == context
