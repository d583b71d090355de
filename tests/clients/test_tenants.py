"""What the Tenant Service's answers mean, over sockets and from a file."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.clients.peers import ClientTestCase, in_pieces
from whatsapp_egress.clients.tenants import TenantFile, TenantService, read_credentials
from whatsapp_egress.errors import CredentialsSuspended, CredentialsUnavailable, TenantNotFound
from whatsapp_egress.policy.credentials import Credentials
from whatsapp_egress.sandbox.server import Sandbox

EPOCH = 1_780_000_000.0
PATH = "/api/v1/tenants/{tenantId}/credentials?type=whatsapp"


class Asking(ClientTestCase):
    def tenant_service(self, url: str, **options: Any) -> TenantService:
        defaults = {"path": PATH, "token": None, "user_agent": "whatsapp-egress/test", "now": lambda: EPOCH}
        return TenantService(self.client(), url, **{**defaults, **options})

    def sandbox(self, **options: Any) -> Sandbox:
        sandbox = Sandbox(reactor, **options)
        sandbox.tenants.add("t1", token="EAAone", messages_per_second=20)
        sandbox.startService()
        self.addCleanup(sandbox.stopService)
        return sandbox

    async def unavailable(self, service: TenantService) -> str:
        with pytest.raises(CredentialsUnavailable) as caught:
            await service.fetch("t1")
        return caught.value.reason


class AnswerTests(Asking):
    async def test_credentials_are_read(self) -> None:
        credentials = await self.tenant_service(self.sandbox().tenants_url).fetch("t1")

        assert (credentials.token, credentials.messages_per_second) == ("EAAone", 20)

    async def test_a_tenant_it_does_not_know_is_not_found(self) -> None:
        with pytest.raises(TenantNotFound):
            await self.tenant_service(self.sandbox().tenants_url).fetch("t2")

    async def test_403_and_a_status_of_suspended_or_expired_are_suspended(self) -> None:
        sandbox = self.sandbox()
        for mode in ("403", "suspended", "expired"):
            sandbox.tenants.change("t1", mode=mode)
            with pytest.raises(CredentialsSuspended):
                await self.tenant_service(sandbox.tenants_url).fetch("t1")

    async def test_every_other_status_says_nothing_of_the_tenant(self) -> None:
        sandbox = self.sandbox()
        for status in ("400", "401", "408", "429", "500", "502", "503"):
            sandbox.tenants.change("t1", mode=status)
            assert await self.unavailable(self.tenant_service(sandbox.tenants_url)) == f"http_{status}"

    async def test_a_redirect_is_not_followed(self) -> None:
        elsewhere = self.sandbox()
        location = f"{elsewhere.tenants_url}/api/v1/tenants/t1/credentials?type=whatsapp"
        answer = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        server = self.serve(answer.encode())

        assert await self.unavailable(self.tenant_service(server.url)) == "http_302"
        assert elsewhere.fetches.count == 0

    async def test_200_with_junk_says_nothing_of_the_tenant(self) -> None:
        sandbox = self.sandbox()
        for mode in ("junk", "empty", "no_token"):
            sandbox.tenants.change("t1", mode=mode)
            assert await self.unavailable(self.tenant_service(sandbox.tenants_url)) == "junk"

    async def test_200_that_is_too_large_or_breaks_off_is_junk(self) -> None:
        large = self.serve(in_pieces(b"[" + b" " * (2 << 20) + b"]"))
        broken = self.serve(lambda visitor: (visitor.write(b"HTTP/1.1 200 OK\r\n"), _half(visitor)))
        for server in (large, broken):
            assert await self.unavailable(self.tenant_service(server.url)) == "junk"

    async def test_no_connection_and_no_answer_are_told_apart(self) -> None:
        sandbox = self.sandbox()
        sandbox.tenants.change("t1", mode="reset")
        assert await self.unavailable(self.tenant_service(sandbox.tenants_url)) == "no_answer"

        await sandbox.stop_tenants()
        asked = self.tenant_service(sandbox.tenants_url).fetch("t1")
        with pytest.raises(CredentialsUnavailable) as caught:
            await self.meanwhile(asked)
        assert caught.value.reason == "connect"


def _half(visitor: Any) -> None:
    visitor.write(b"Content-Length: 100\r\n\r\nhalf")
    visitor.transport.loseConnection()


class RequestTests(Asking):
    async def request(self, tenant_id: str = "t1", **options: Any) -> tuple[str, dict[str, str]]:
        """The request line and the headers that arrive."""
        server = self.serve(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        base = options.pop("base", "")
        with pytest.raises(TenantNotFound):
            await self.tenant_service(server.url + base, **options).fetch(tenant_id)
        line, *headers = server.visitors[0].got.decode().split("\r\n\r\n")[0].split("\r\n")
        return line, dict(header.split(": ", 1) for header in headers)

    async def test_it_is_the_one_of_the_contract(self) -> None:
        line, headers = await self.request("a.B_c-1")

        assert line == "GET /api/v1/tenants/a.B_c-1/credentials?type=whatsapp HTTP/1.1"
        assert headers["Accept"] == "application/json"
        assert headers["User-Agent"] == "whatsapp-egress/test"
        assert "Authorization" not in headers

    async def test_a_token_is_shown_when_there_is_one(self) -> None:
        _, headers = await self.request(token="service-token")

        assert headers["Authorization"] == "Bearer service-token"

    async def test_the_token_is_taken(self) -> None:
        url = self.sandbox(tenant_service_token="service-token").tenants_url

        assert (await self.tenant_service(url, token="service-token").fetch("t1")).token == "EAAone"

    async def test_the_path_can_be_another_one_below_another_folder(self) -> None:
        line, _ = await self.request("t1", base="/internal/", path="/{tenantId}/wa?x=1&y={tenantId}")

        assert line == "GET /internal/t1/wa?x=1&y=t1 HTTP/1.1"


def answer(**changes: Any) -> dict[str, Any]:
    inner = {"systemUserAccessToken": "EAAone", "rateLimits": {"messagesPerSecond": 20}}
    return {"status": "active", "credentials": inner, **changes}


def inner(**changes: Any) -> dict[str, Any]:
    return answer(credentials={"systemUserAccessToken": "EAAone", **changes})


class ReadTests(SynchronousTestCase):
    def test_what_is_not_named_is_left_open(self) -> None:
        assert read_credentials("t1", inner(), EPOCH) == Credentials("EAAone")

    def test_a_rate_that_is_none_is_left_open(self) -> None:
        for limits in (None, [], {}, *({"messagesPerSecond": junk} for junk in (0, -1, "80", True, None))):
            assert read_credentials("t1", inner(rateLimits=limits), EPOCH).messages_per_second is None, limits

    def test_a_rate_may_have_a_fraction(self) -> None:
        limits = {"messagesPerSecond": 0.5}

        assert read_credentials("t1", inner(rateLimits=limits), EPOCH).messages_per_second == 0.5

    def test_a_rate_beyond_all_bounds_is_bounded(self) -> None:
        limits = {"messagesPerSecond": 10**400}

        assert read_credentials("t1", inner(rateLimits=limits), EPOCH).messages_per_second == 1_000_000_000

    def test_their_end_is_read(self) -> None:
        credentials = read_credentials("t1", answer(expiresAt="2026-11-23T10:40:00.000Z"), EPOCH)

        assert credentials.expires_at == 1_795_430_400.0

    def test_active_ones_whose_end_has_passed_are_no_answer(self) -> None:
        with pytest.raises(CredentialsUnavailable, match="expiresAt has passed"):
            read_credentials("t1", answer(expiresAt="2020-01-01T00:00:00Z"), EPOCH)

    def test_suspended_ones_need_no_token(self) -> None:
        with pytest.raises(CredentialsSuspended, match="suspended"):
            read_credentials("t1", {"status": "suspended"}, EPOCH)

    def test_whatever_else_is_not_as_agreed_is_no_answer(self) -> None:
        for junk in (
            None,
            [],
            "active",
            {},
            answer(status="Active"),
            answer(status=["suspended"]),
            answer(credentials=[]),
            answer(expiresAt="tomorrow"),
            answer(tenantId="t2"),
            answer(tenantId=None),
            answer(expiresAt=1_795_430_400),
            *(inner(systemUserAccessToken=token) for token in (None, "", 7, "a b", "a\r\nX: y", "é", "a\n")),
        ):
            with pytest.raises(CredentialsUnavailable):
                read_credentials("t1", junk, EPOCH)


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "tenants.json"
        self.now = EPOCH
        self.learned: list[str] = []
        self.asked: list[tuple[str, str | None, float]] = []
        self.file = TenantFile(self.path, 3600.0, lambda: self.now, self.learned.append, self.hear)
        self.written = 0
        self.log: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.log.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.log.append)

    def hear(self, *asked: Any) -> None:
        self.asked.append(asked)

    def write(self, content: object) -> None:
        self.path.write_text(content if isinstance(content, str) else json.dumps(content))
        # A second write within the file system's tick, of the same size, would look the same.
        self.written += 1
        os.utime(self.path, ns=(self.written, self.written))

    def token(self, tenant_id: str = "t1") -> str:
        return self.successResultOf(self.file.get(tenant_id)).token

    def told(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.log if each["log_format"] == event]

    def test_a_tenant_is_read(self) -> None:
        self.write({"t1": answer()})

        assert self.successResultOf(self.file.get("t1")) == Credentials("EAAone", 20.0)
        assert self.learned == ["EAAone"]

    def test_it_is_read_again_when_it_changes(self) -> None:
        self.write({"t1": answer()})
        self.token()
        self.write({"t1": inner(systemUserAccessToken="EAAtwo")})

        assert self.token() == "EAAtwo"

    def test_it_is_not_read_again_when_it_does_not(self) -> None:
        self.write({"t1": answer()})
        self.token()
        self.path.chmod(0)
        self.patch(Path, "read_bytes", lambda path: self.fail("it was read again"))

        assert self.token() == "EAAone"

    def test_it_is_read_again_when_it_is_asked_for_though_it_looks_the_same(self) -> None:
        self.write({"t1": answer()})
        self.token()
        self.written -= 1
        self.write(json.dumps({"t1": answer()}).replace("EAAone", "EAAtwo"))
        assert self.token() == "EAAone"

        self.file.forget("t1")
        assert self.token() == "EAAtwo"

    def test_a_tenant_that_is_not_in_it_is_not_found(self) -> None:
        self.write({"t1": answer()})

        self.failureResultOf(self.file.get("t2"), TenantNotFound)

    def test_a_suspended_one_is_suspended(self) -> None:
        self.write({"t1": {"status": "suspended"}})

        self.failureResultOf(self.file.get("t1"), CredentialsSuspended)

    def test_junk_in_one_tenant_is_told_and_does_not_touch_the_others(self) -> None:
        self.write({"t1": 7, "t2": answer()})

        assert self.failureResultOf(self.file.get("t1"), CredentialsUnavailable).value.reason == "junk"
        assert self.token("t2") == "EAAone"
        (event,) = self.told("credential_fetch_failed")
        assert (event["tenantId"], event["reason"]) == ("t1", "junk")

    def test_a_file_that_is_not_there_yet_is_waited_for(self) -> None:
        error = self.failureResultOf(self.file.get("t1"), CredentialsUnavailable).value
        assert str(error) == f"{self.path}: No such file or directory"

        self.write({"t1": answer()})
        assert self.token() == "EAAone"

    def test_while_it_is_broken_or_gone_what_it_said_is_used(self) -> None:
        self.write({"t1": answer()})
        self.token()
        for broken in ("", '{"t1": ', "[]", "[" * 100_000, '{"t1": 0, "\\ud800": 1}'):
            self.write(broken)
            assert self.token() == "EAAone", broken
        self.path.unlink()
        assert self.token() == "EAAone"

    def test_but_not_for_ever(self) -> None:
        self.write({"t1": answer()})
        self.token()
        self.write("broken")
        self.now += 3599
        assert self.token() == "EAAone"

        self.now += 1
        self.failureResultOf(self.file.get("t1"), CredentialsUnavailable)
        assert self.asked == [("t1", "file", 0.0)]

    def test_nor_at_all_where_the_operator_wants_no_old_ones(self) -> None:
        self.file = TenantFile(self.path, 0.0, lambda: self.now, self.learned.append, self.hear)
        self.write({"t1": answer()})
        assert self.token() == "EAAone"

        self.write("broken")
        self.failureResultOf(self.file.get("t1"), CredentialsUnavailable)

    def test_what_is_broken_is_told_once(self) -> None:
        self.write({"t1": answer()})
        self.token()
        self.write("broken")
        for _ in range(3):
            self.token()

        (event,) = self.told("tenant_file_unusable")
        assert (event["path"], event["staleUsed"]) == (str(self.path), True)
        assert event["detail"].startswith("JSON is malformed")

    def test_a_token_that_meta_refused_stays_until_somebody_changes_the_file(self) -> None:
        self.write({"t1": answer()})
        self.file.drop("t1", self.successResultOf(self.file.get("t1")))
        self.file.stop()

        assert self.token() == "EAAone"
