"""Secrets in text: found wherever they stand, and nothing else is."""

import json
from base64 import b64encode
from urllib.parse import quote, quote_plus

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.observe.needles import SHORTEST, Needles
from whatsapp_egress.observe.redaction import REDACTED, Redactor, is_secret_name

few = st.text(alphabet="ab", max_size=40)
needles = st.lists(st.text(alphabet="ab", min_size=SHORTEST, max_size=24), max_size=8)


class NeedlesTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=400)
    @given(strings=needles, text=few)
    def test_it_finds_what_a_plain_search_finds(self, strings: list[str], text: str) -> None:
        bag = Needles()
        for string in strings:
            bag.add(string)

        assert set(bag.spans(text)) == {
            (start, start + len(string))
            for string in strings
            for start in range(len(text))
            if text.startswith(string, start)
        }

    @settings(deadline=None, max_examples=200)
    @given(strings=needles, gone=needles, text=few)
    def test_what_was_taken_out_leaves_no_trace(self, strings: list[str], gone: list[str], text: str) -> None:
        bag, other = Needles(), Needles()
        for string in strings + gone:
            bag.add(string)
        for string in gone:
            bag.discard(string)
        for string in strings:
            other.add(string)

        assert (bag.spans(text), bag.longest()) == (other.spans(text), other.longest())

    def test_a_string_that_is_too_short_or_not_there_is_let_be(self) -> None:
        bag = Needles()
        bag.add("ab")
        bag.discard("ab")
        bag.discard("abc")

        assert bag.spans("abc") == []


class KnownSecretTests(SynchronousTestCase):
    def redacted(self, secret: str, text: str) -> str:
        redactor = Redactor()
        redactor.know(secret)
        return redactor.text(text)

    def test_it_is_found_as_a_word_and_inside_of_one(self) -> None:
        for around in ("{}", " {} ", "x{}y", "https://h/{}?a", "{}{}", "({},", "0{}0"):
            text = self.redacted("tok-123", around.format("tok-123", "tok-123"))
            assert text == around.format(REDACTED, REDACTED)

    @settings(deadline=None)
    @given(
        secret=st.text(min_size=SHORTEST, max_size=40),
        before=st.text(max_size=20),
        after=st.text(max_size=20),
    )
    def test_it_is_found_between_any_texts(self, secret: str, before: str, after: str) -> None:
        redactor = Redactor()
        redactor.know(secret)

        assert secret not in redactor.text(before + secret + after).replace(REDACTED, "\0")

    @settings(deadline=None)
    @given(
        secret=st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=SHORTEST + 1, max_size=40),
        write=st.sampled_from(
            [
                lambda secret: repr(secret)[1:-1],
                lambda secret: repr([secret])[2:-2],
                lambda secret: repr(secret.encode())[2:-1],
                lambda secret: json.dumps(secret)[1:-1],
                lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
                lambda secret: quote(secret, safe=""),
                quote,
                quote_plus,
            ]
        ),
    )
    def test_it_is_found_in_every_writing(self, secret: str, write: object) -> None:
        written = write(secret)  # type: ignore[operator]

        assert self.redacted(secret, f"<{written}>") == f"<{REDACTED}>"

    @settings(deadline=None)
    @given(
        secret=st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=8, max_size=40),
        user=st.text(alphabet="user:", max_size=7),
    )
    def test_one_of_the_settings_is_found_in_basic_credentials(self, secret: str, user: str) -> None:
        encoded = b64encode(f"{user}:{secret}".encode()).decode()
        text = Redactor([secret]).text(f"<{encoded}>")

        assert REDACTED in text
        assert len(text) - len(REDACTED) < len(user) * 4 / 3 + 10

    def test_overlapping_secrets_leave_nothing_of_either(self) -> None:
        redactor = Redactor(["abcdef", "defghi"])

        assert redactor.text("-abcdefghi-") == f"-{REDACTED}-"

    def test_a_secret_of_two_letters_is_not_looked_for(self) -> None:
        assert self.redacted("no", "nothing") == "nothing"

    def test_an_empty_secret_is_none(self) -> None:
        assert self.redacted("", "text") == "text"

    def test_a_forgotten_secret_can_stand_again(self) -> None:
        redactor = Redactor()
        redactor.know("tok-123")
        redactor.forget("tok-123")
        redactor.forget("tok-123")

        assert redactor.text("tok-123") == "tok-123"

    def test_one_of_the_settings_is_never_forgotten(self) -> None:
        redactor = Redactor(["tok-123"], most=1)
        for secret in ("tok-123", "tok-124", "tok-125"):
            redactor.know(secret)
        redactor.forget("tok-123")

        assert redactor.text("tok-123") == REDACTED

    def test_past_the_limit_the_one_unheard_of_for_longest_is_forgotten(self) -> None:
        redactor = Redactor(most=2)
        for secret in ("one-1", "two-2", "one-1", "three-3"):
            redactor.know(secret)

        assert redactor.text("one-1 two-2 three-3") == f"{REDACTED} two-2 {REDACTED}"

    def test_ten_thousand_tokens_with_a_common_beginning_are_told_from_other_text(self) -> None:
        redactor = Redactor()
        for number in range(10_000):
            redactor.know(f"tenant-token-{number:05d}-of-this-installation")

        assert redactor.known("tenant-token-0500") == "tenant-token-0500"
        assert redactor.known("x tenant-token-05000-of-this-installation") == f"x {REDACTED}"


class LooksTests(SynchronousTestCase):
    def test_what_looks_like_a_secret_is_taken_out(self) -> None:
        redactor = Redactor()
        for text, left in (
            ("a EAAGm0PX4ZCpsBAKZCdEFghijklmnop b", f"a {REDACTED} b"),
            ("xEAAGm0PX4ZCpsBAKZCdEFghijklmnop", f"x{REDACTED}"),
            ("Authorization Bearer abc.def-1", f"Authorization Bearer {REDACTED}"),
            ("bearer%20abc", f"bearer%20{REDACTED}"),
            ("GET /x?access_token=abc&y=1", f"GET /x?access_token={REDACTED}&y=1"),
            ("appsecret_proof=0f1e2d", f"appsecret_proof={REDACTED}"),
            ("User(password='a b', name='n')", f"User(password='{REDACTED}', name='n')"),
            ('{"systemUserAccessToken": "abc", "x": "y"}',
             f'{{"systemUserAccessToken": "{REDACTED}", "x": "y"}}'),
            ("{b'authorization': [b'Basic abc']}", f"{{b'authorization': [b'{REDACTED}']}}"),
            ("Authorization: Basic abc=", f"Authorization: {REDACTED}"),
            ("Set-Cookie: a=b; c\nx", f"Set-Cookie: {REDACTED}\nx"),
            ("META_APP_SECRET=abc", f"META_APP_SECRET={REDACTED}"),
            ("api_key=abc)", f"api_key={REDACTED})"),
        ):  # fmt: skip
            assert redactor.text(text) == left

    def test_what_is_clean_stays_as_it_is(self) -> None:
        redactor = Redactor()
        for text in (
            "Error validating access token: Session has expired",
            "the token was dropped",
            "EAA is short",
            "bearer",
            "key=value",
            "monkey=1",
            "routing_key=outbound.failed",
            f"token={REDACTED}",
            "",
        ):
            assert redactor.text(text) == text

    @settings(deadline=None)
    @given(st.text(max_size=100))
    def test_clean_text_is_not_changed_by_a_second_pass(self, text: str) -> None:
        redactor = Redactor(["abc"])
        once = redactor.text(text)

        assert redactor.text(once) == once

    def test_long_texts_of_suspicious_words_take_no_long_time(self) -> None:
        redactor = Redactor()
        for text in ("token" * 3200, "authorization: " * 1000, "bearer " * 2300, "token'  " * 2000):
            redactor.text(text)


class NameTests(SynchronousTestCase):
    def test_names_of_secrets_are_recognised_in_any_spelling(self) -> None:
        for name in (
            "token", "systemUserAccessToken", "access_token", "X-Auth-Token", "PASSWORD", "rabbitmq_password",
            "appSecret", "Authorization", "proxy-authorization", "appsecret_proof", "Set-Cookie", "apiKey",
            "api_key", "private-key", "passphrase", "clientSecrets",
        ):  # fmt: skip
            assert is_secret_name(name), name

    def test_other_names_are_not(self) -> None:
        for name in ("tenantId", "routing_key", "author", "pass", "key", "phoneNumberId", "detail"):
            assert not is_secret_name(name), name
