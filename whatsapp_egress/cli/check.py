"""`check`: are the settings right, and is everything there that the gateway needs."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Sequence
from typing import Any

import click
from twisted.internet.defer import Deferred

from whatsapp_egress.cli.check_broker import broker_findings
from whatsapp_egress.cli.check_peers import meta_findings, tenant_findings
from whatsapp_egress.cli.check_ports import port_findings
from whatsapp_egress.cli.findings import Finding, Grade, failed, ok, warning
from whatsapp_egress.cli.reach import TENANT, json_option
from whatsapp_egress.cli.running import on_reactor
from whatsapp_egress.cli.tables import coloured, counted, put, put_json
from whatsapp_egress.cli.trouble import Exit
from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.settings import BadSettings, Settings

_WIDEST_GRADE = max(len(grade.value) for grade in Grade)


@click.command(short_help="Check settings and connections.")
@click.option("--tenant", type=TENANT, help="Ask the Tenant Service for this tenant's credentials.")
@json_option
def check(tenant: str | None, as_json: bool) -> None:
    """Check the settings, and connect once to everything the gateway needs.

    Nothing is declared, published or sent. Exit status 0 when nothing failed, warnings or not, else 1.
    """
    try:
        settings = Settings.from_environment(os.environ)
    except BadSettings as bad:
        findings = [
            failed("settings", f"{fault.source} {fault.problem}; expected {fault.expected}", fault.advice)
            for fault in bad.faults
        ]
        for finding in [] if as_json else findings:
            _tell(finding)
        _end(findings, as_json, "Nothing was connected; correct the settings first.")
        return
    redactor = Redactor(settings.secrets())
    findings = on_reactor(lambda reactor: _look(reactor, settings, redactor, tenant, as_json), redactor)
    _end(findings, as_json, "")


async def _look(
    reactor: Any, settings: Settings, redactor: Redactor, tenant: str | None, as_json: bool
) -> list[Finding]:
    looks: Sequence[Coroutine[Deferred[Any], Any, list[Finding]]] = (
        _settings(settings),
        broker_findings(reactor, settings),
        tenant_findings(reactor, settings, redactor, tenant),
        meta_findings(reactor, settings),
        port_findings(reactor, settings),
    )
    # All at once, for each may take its time to fail; told in order.
    running = [Deferred.fromCoroutine(look) for look in looks]
    findings: list[Finding] = []
    try:
        for look in running:
            found = await look
            findings += found
            for finding in [] if as_json else found:
                _tell(finding)
    finally:
        for look in running:
            look.addErrback(lambda _: None)
            look.cancel()
    return findings


async def _settings(settings: Settings) -> list[Finding]:
    findings = [ok("settings", "all are right")]
    if settings.admin_token:
        findings.append(ok("ADMIN_TOKEN", "is set: the control API is enabled"))
    else:
        findings.append(
            warning(
                "ADMIN_TOKEN",
                "is not set: the control API is off",
                "With it, this command line can see and steer a running gateway.",
            )
        )
    return findings


def _tell(finding: Finding) -> None:
    grade = coloured(finding.grade.value) + " " * (_WIDEST_GRADE - len(finding.grade.value))
    put(f"{grade}  {finding.part}: {finding.what}")
    if finding.advice:
        put(f"{'':{_WIDEST_GRADE}}  -> {finding.advice}")


def _end(findings: Sequence[Finding], as_json: bool, remark: str) -> None:
    bad = sum(finding.grade is Grade.FAILED for finding in findings)
    if as_json:
        put_json(
            {
                "ok": not bad,
                "checks": [
                    {"part": each.part, "grade": each.grade.value, "what": each.what, "advice": each.advice}
                    for each in findings
                ],
            }
        )
    else:
        doubtful = sum(finding.grade is Grade.WARNING for finding in findings)
        put()
        put(f"{counted(bad, 'check')} failed, {counted(doubtful, 'warning')}. {remark}".strip())
    if bad:
        raise SystemExit(Exit.FAILED)
