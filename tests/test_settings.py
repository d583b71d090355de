"""The settings: what the environment says, and what is said of a bad one."""

import re
import shutil
import tempfile
from pathlib import Path

import pytest
import trustme
from attrs import fields
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress import setting_pages
from whatsapp_egress.setting import settings_of
from whatsapp_egress.settings import BadSettings, Settings

ENOUGH = {"TENANT_SERVICE_URL": "http://tenants:8080"}
CONTRACT = [
    "RABBITMQ_HOST", "RABBITMQ_PORT", "RABBITMQ_USER", "RABBITMQ_PASSWORD", "RABBITMQ_VHOST",
    "RABBITMQ_TLS", "RABBITMQ_CA_FILE", "RABBITMQ_QUEUE", "RABBITMQ_EXCHANGE", "RABBITMQ_QUEUE_TYPE",
    "RABBITMQ_PREFETCH", "RABBITMQ_HEARTBEAT", "RABBITMQ_RECONNECT_DELAY", "TENANT_SERVICE_URL",
    "TENANT_SERVICE_TOKEN", "TENANT_SERVICE_TIMEOUT", "TENANT_SERVICE_CREDENTIALS_PATH",
    "CREDENTIAL_CACHE_TTL", "CREDENTIAL_STALE_TTL", "CREDENTIAL_NEGATIVE_TTL", "META_API_BASE_URL",
    "META_API_VERSION", "META_API_CA_FILE", "META_API_TIMEOUT", "META_API_MAX_RETRIES",
    "META_API_RETRY_DELAY", "META_API_MAX_CONNECTIONS", "META_API_MAX_CONNECTIONS_PER_TENANT",
    "META_APP_SECRET", "RATE_LIMIT_DEFAULT_MPS", "RATE_LIMIT_REFILL_INTERVAL",
    "BREAKER_FAILURE_THRESHOLD", "BREAKER_RESET_TIMEOUT", "HEALTH_CHECK_PORT", "PROMETHEUS_PORT",
    "HTTP_BIND", "LOG_LEVEL", "LOG_PII", "SHUTDOWN_TIMEOUT", "MESSAGE_MAX_BYTES", "METRICS_MAX_TENANTS",
    "EVENTS_ENABLED", "TRACK_CALLBACK_DATA", "META_API_RETRY_AMBIGUOUS", "META_API_ALLOW_INSECURE",
]  # fmt: skip


def read(**environ: str) -> Settings:
    return Settings.from_environment({**ENOUGH, **environ})


def refused(**environ: str) -> BadSettings:
    with pytest.raises(BadSettings) as caught:
        read(**environ)
    return caught.value


class ReadingTests(SynchronousTestCase):
    def test_every_setting_of_the_contract_is_declared_and_no_other(self) -> None:
        ours = ("LANE_ACTIVE_LIMIT", "DEFER_AFTER", "HELD_MAX_BYTES", "ADMIN_TOKEN")
        assert sorted((*CONTRACT, *ours)) == sorted(declared.name for _, declared in settings_of(Settings))

    def test_with_the_least_environment_the_rest_is_as_documented(self) -> None:
        settings = read()

        assert [
            settings.rabbitmq_host,
            settings.rabbitmq_port,
            settings.rabbitmq_user,
            settings.rabbitmq_vhost,
        ] == ["localhost", 5672, "guest", "/"]
        assert settings.meta_api_base_url == "https://graph.facebook.com"
        assert settings.tenant_service_token is None
        assert settings.meta_api_retry_ambiguous is True

    def test_the_environment_and_the_constructor_have_the_same_defaults(self) -> None:
        assert read() == Settings(tenant_service_url="http://tenants:8080")

    def test_times_are_given_in_milliseconds_and_held_in_seconds(self) -> None:
        settings = read(META_API_TIMEOUT="2500", SHUTDOWN_TIMEOUT="1")

        assert [settings.meta_api_timeout, settings.shutdown_timeout] == [2.5, 0.001]

    def test_the_heartbeat_is_given_in_seconds(self) -> None:
        assert read(RABBITMQ_HEARTBEAT="20").rabbitmq_heartbeat == 20

    def test_with_tls_the_port_of_the_broker_is_that_of_amqps(self) -> None:
        assert read(RABBITMQ_TLS="true").rabbitmq_port == 5671

    def test_a_port_that_is_given_stays_with_tls_too(self) -> None:
        assert read(RABBITMQ_TLS="true", RABBITMQ_PORT="5672").rabbitmq_port == 5672

    def test_an_empty_or_blank_variable_counts_as_not_given(self) -> None:
        assert read(RABBITMQ_HOST="", META_API_TIMEOUT="  ", META_APP_SECRET="") == read()

    def test_blanks_around_a_value_are_dropped(self) -> None:
        assert read(RABBITMQ_PREFETCH=" 7\n").rabbitmq_prefetch == 7

    def test_blanks_around_a_password_are_part_of_it(self) -> None:
        assert read(RABBITMQ_PASSWORD=" x ").rabbitmq_password == " x "

    def test_yes_and_no_have_three_spellings_in_any_case(self) -> None:
        assert {read(LOG_PII=word).log_pii for word in ("true", "TRUE", "1", "Yes")} == {True}
        assert {read(LOG_PII=word).log_pii for word in ("false", "False", "0", "NO")} == {False}

    def test_warning_is_another_word_for_warn(self) -> None:
        assert read(LOG_LEVEL="WARNING").log_level == "warn"

    def test_a_variable_of_no_setting_is_no_fault(self) -> None:
        assert read(RABBITMQ_COLOUR="red", META_API_X="1") == read()

    def test_a_slash_at_the_end_of_an_address_is_dropped(self) -> None:
        settings = read(TENANT_SERVICE_URL="http://t/base/", META_API_BASE_URL="https://proxy:8443/")

        assert [settings.tenant_service_url, settings.meta_api_base_url] == [
            "http://t/base",
            "https://proxy:8443",
        ]

    def test_a_host_is_a_name_or_an_address(self) -> None:
        for host in ("rabbit-1.svc.local", "rabbit.", "xn--bcher-kva.example", "a" * 63, "10.0.0.7", "::1"):
            assert read(RABBITMQ_HOST=host).rabbitmq_host == host

    def test_a_file_can_stand_for_the_tenant_service(self) -> None:
        for url in ("file:///etc/tenants.json", "file://localhost/etc/tenants.json"):
            assert read(TENANT_SERVICE_URL=url).tenant_service_url == "file:///etc/tenants.json"

    def test_http_to_meta_is_fine_on_this_machine(self) -> None:
        for url in ("http://localhost:1", "http://127.0.0.1", "http://127.8.8.8:80", "http://[::1]:8480"):
            assert read(META_API_BASE_URL=url).meta_api_base_url == url

    def test_http_to_meta_elsewhere_can_be_allowed(self) -> None:
        settings = read(META_API_BASE_URL="http://proxy", META_API_ALLOW_INSECURE="true")

        assert settings.meta_api_base_url == "http://proxy"

    def test_a_certificate_file_is_held_as_its_absolute_path(self) -> None:
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        path = folder / "ca.pem"
        path.write_bytes("# Certificación\n".encode() + trustme.CA().cert_pem.bytes())

        assert read(META_API_CA_FILE=str(path)).meta_api_ca_file == path.absolute()


class SecretTests(SynchronousTestCase):
    def file(self, content: bytes) -> str:
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        path = folder / "secret"
        path.write_bytes(content)
        return str(path)

    def fault(self, **environ: str) -> str:
        (fault,) = refused(**environ).faults
        return str(fault)

    def test_a_secret_can_come_from_a_file_less_one_line_end(self) -> None:
        for content in (b"s3cret", b"s3cret\n", b"s3cret\r\n"):
            assert read(META_APP_SECRET_FILE=self.file(content)).meta_app_secret == "s3cret"

    def test_only_one_line_end_is_dropped(self) -> None:
        assert read(RABBITMQ_PASSWORD_FILE=self.file(b" p \n\n")).rabbitmq_password == " p \n"

    def test_a_secret_given_twice_is_a_fault(self) -> None:
        fault = self.fault(META_APP_SECRET="hunter2", META_APP_SECRET_FILE=self.file(b"hunter3"))

        assert "META_APP_SECRET and META_APP_SECRET_FILE are both given" in fault
        assert "hunter" not in fault

    def test_a_file_that_is_away_empty_too_large_or_no_text_is_a_fault_that_names_it(self) -> None:
        for path, problem in (
            ("/nowhere/token", "can't be read: No such file or directory"),
            (self.file(b"\n"), "is empty"),
            (self.file(b"x" * 65537), "holds more than 65536 bytes"),
            (self.file(b"hunter2\xff"), "is not UTF-8 text"),
        ):
            fault = self.fault(TENANT_SERVICE_TOKEN_FILE=path)
            assert f"TENANT_SERVICE_TOKEN_FILE={path} {problem}" in fault
            assert "hunter2" not in fault

    def test_a_token_that_would_break_a_header_is_refused_and_not_shown(self) -> None:
        for token in ("hunter2\n", "hunter 2", "hunter2\r\nX-Evil: 1", "hünter2"):
            fault = self.fault(TENANT_SERVICE_TOKEN=token)
            assert "TENANT_SERVICE_TOKEN is not usable" in fault
            assert "unter" not in fault

    def test_a_token_for_operators_that_could_be_guessed_is_refused_and_not_shown(self) -> None:
        fault = self.fault(ADMIN_TOKEN="hunter2hunter2h")
        assert "ADMIN_TOKEN is not usable" in fault
        assert "expected at least 16 visible ASCII characters" in fault
        assert "It is too short" in fault
        assert "hunter" not in fault
        assert read(ADMIN_TOKEN="hunter2hunter2hu").admin_token == "hunter2hunter2hu"

    def test_a_token_for_operators_can_come_from_a_file(self) -> None:
        path = self.file(b"hunter2hunter2hunter2\n")

        assert read(ADMIN_TOKEN_FILE=path).admin_token == "hunter2hunter2hunter2"

    def test_no_secret_is_in_the_repr(self) -> None:
        settings = read(
            RABBITMQ_PASSWORD="hunter2",
            TENANT_SERVICE_TOKEN="hunter3",
            META_APP_SECRET="hunter4",
            ADMIN_TOKEN="hunter5hunter5hunter5",
        )

        assert "hunter" not in repr(settings) + str(settings)

    def test_the_secrets_are_told_to_those_who_must_hide_them(self) -> None:
        settings = read(RABBITMQ_PASSWORD="a b", TENANT_SERVICE_TOKEN="t0ken", ADMIN_TOKEN="0123456789abcdef")

        assert settings.secrets() == ("a b", "t0ken", "0123456789abcdef")

    def test_the_public_password_of_rabbitmq_is_no_secret(self) -> None:
        assert read().secrets() == ()


BAD = {
    "RABBITMQ_HOST": [
        "amqp://rabbit", "rabbit:5672", "a b", "-x", "x-", "a..b", ".a", "my_rabbit", "ab--c", "a" * 64,
        "a." * 127 + "a", "bücher.example",
    ],
    "RABBITMQ_PORT": ["0", "65536", "x", "+5", "5_0", "1e3", "٣", "-1", "5.0", "9" * 5000],
    "RABBITMQ_QUEUE": ["q" * 256, "é" * 128, "a\x00b", "a\nb", "\ud800"],
    "RABBITMQ_QUEUE_TYPE": ["stream"],
    "RABBITMQ_PREFETCH": ["0", "65536", "NaN", "inf"],
    "RABBITMQ_HEARTBEAT": ["0", "-30", "30s"],
    "RABBITMQ_TLS": ["on!", "2", "tru"],
    "RABBITMQ_CA_FILE": ["/nowhere/ca.pem", "/dev/null", __file__, "/", "a\x00b"],
    "TENANT_SERVICE_URL": [
        "tenants:8080", "ftp://t", "http://", "http:///x", "http://u:p@t", "http://t?x=1", "http://t#f",
        "http://t:99999", "http://t:x", "http://[::1", "http://a b", "file://etc/x", "file:x", "file:///",
        "file:///a?b", "http://t/\nx", "http://t\t.evil", "file:///a%00b", "http://t:0",
    ],
    "TENANT_SERVICE_CREDENTIALS_PATH": [
        "/api/v1", "api/{tenantId}", "//evil/{tenantId}", "/{tenantId}#f", "/{tenantId}/{x}", "/{tenantId} x",
    ],
    "META_API_BASE_URL": [
        "http://graph.facebook.com", "http://127.1", "http://localhost.evil.com", "graph.facebook.com",
        "https://u@h", "https://a..b", "https://h/?a=b", "https://h?", "file:///x", "http://128.0.0.1", "http://0.0.0.0",
    ],
    "META_API_VERSION": ["25.0", "v25", "v25.0\x00", "v25.0/..", "v٢.0"],
    "META_API_TIMEOUT": ["0", "-1", "1.5", "soon", "31536000001"],
    "META_API_MAX_RETRIES": ["-1", "101"],
    "RATE_LIMIT_DEFAULT_MPS": ["0", "0.0", "-1", "inf", "nan", "1e3", "1_0", "1000001", ".5"],
    "LOG_LEVEL": ["verbose", "notset"],
    "HTTP_BIND": ["localhost", "127.0.0.1:80", "256.0.0.1", "*"],
    "PROMETHEUS_PORT": ["8081", "65536"],
}  # fmt: skip


class FaultTests(SynchronousTestCase):
    def test_each_bad_value_is_a_fault_of_its_setting_that_shows_it(self) -> None:
        for name, values in BAD.items():
            for value in values:
                faults = refused(**{name: value}).faults
                assert [fault.name for fault in faults] == [name], value

    def test_a_fault_tells_name_value_expectation(self) -> None:
        bad = refused(RABBITMQ_PORT="70000")

        assert "RABBITMQ_PORT is '70000'; expected a whole number from 1 to 65535." in str(bad)

    def test_all_faults_are_told_at_once_in_the_order_of_the_documentation(self) -> None:
        bad = refused(
            TENANT_SERVICE_URL="",
            META_API_BASE_URL="http://x",
            RABBITMQ_PORT="x",
            LOG_LEVEL="loud",
            HTTP_BIND="*",
        )

        assert [fault.name for fault in bad.faults] == [
            "RABBITMQ_PORT",
            "TENANT_SERVICE_URL",
            "HTTP_BIND",
            "LOG_LEVEL",
            "META_API_BASE_URL",
        ]
        for fault in bad.faults:
            assert str(fault) in str(bad)

    def test_a_missing_setting_is_called_missing(self) -> None:
        bad = refused(TENANT_SERVICE_URL=" ")

        assert "TENANT_SERVICE_URL is missing; expected an http://" in str(bad)

    def test_what_may_be_a_password_in_an_address_is_not_shown(self) -> None:
        for name, value in (
            ("TENANT_SERVICE_URL", "http://u:hunter2@t"),
            ("TENANT_SERVICE_URL", "http://u:hun/ter2@x@t:x"),
            ("TENANT_SERVICE_URL", "http://t?token=hunter2"),
            ("META_API_BASE_URL", "https://me:hunter2@h"),
            ("RABBITMQ_HOST", "amqp://me:hunter2@h"),
        ):
            message = str(refused(**{name: value}))
            assert "ter2" not in message
            assert "hun" not in message

    def test_a_long_value_is_cut_and_a_line_break_escaped(self) -> None:
        message = str(refused(RABBITMQ_HOST="x\n" * 500))

        assert len(message) < 500
        assert len(message.splitlines()) == 3

    def test_a_fault_in_the_leave_does_not_bring_a_fault_of_the_address(self) -> None:
        bad = refused(META_API_BASE_URL="http://proxy", META_API_ALLOW_INSECURE="maybe")

        assert [fault.name for fault in bad.faults] == ["META_API_ALLOW_INSECURE"]

    def test_port_0_may_be_given_for_both(self) -> None:
        assert read(HEALTH_CHECK_PORT="0", PROMETHEUS_PORT="0").prometheus_port == 0


class PageTests(SynchronousTestCase):
    def test_the_documentation_has_the_table_made_from_the_declaration(self) -> None:
        page = Path(__file__).parent.parent / "docs" / "configuration.md"

        assert setting_pages.table() in page.read_text("utf-8"), (
            "put the output of `python -m whatsapp_egress.setting_pages` into docs/configuration.md"
        )

    def test_the_help_has_every_setting_in_lines_of_100_columns(self) -> None:
        lines = setting_pages.help_text().splitlines()

        assert max(map(len, lines)) <= 100
        for attribute in fields(Settings):
            name = attribute.name.upper()
            assert len([line for line in lines if line.split()[:1] == [name]]) == 1, name

    def test_the_help_names_unit_and_file(self) -> None:
        text = setting_pages.help_text()

        assert re.search(r"META_API_TIMEOUT +10000 ms\n", text)
        assert re.search(r"META_APP_SECRET +none \[also META_APP_SECRET_FILE\]\n", text)
