"""The description of the API, held against the API."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from importlib.resources import files
from typing import Any

from openapi_spec_validator import OpenAPIV31SpecValidator
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase

from tests.control.letters import letter
from tests.control.served import TOKEN, Served
from whatsapp_egress.control.jobs import State
from whatsapp_egress.message import TENANT_ID
from whatsapp_egress.observe.lane_view import TROUBLE
from whatsapp_egress.pipeline.road import Cause
from whatsapp_egress.pipeline.whereabouts import Where
from whatsapp_egress.policy.replay import Would
from whatsapp_egress.policy.verdict import Reason

METHODS = {"get", "post", "put", "patch", "delete"}


def description() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files("whatsapp_egress.control").joinpath("openapi.json").read_bytes())
    return found


class DescriptionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.description = description()
        self.schemas = self.description["components"]["schemas"]

    def test_it_is_one(self) -> None:
        OpenAPIV31SpecValidator(self.description).validate()

    def test_every_one_of_its_words_is_one_of_ours(self) -> None:
        message, lane = self.schemas["Message"]["properties"], self.schemas["Lane"]["properties"]

        assert set(self.schemas["WaitsFor"]["properties"]["cause"]["enum"]) == {each.value for each in Cause}
        assert set(message["where"]["enum"]) == {each.value for each in Where}
        assert set(message["reason"]["enum"]) == {None, *(each.value for each in Reason)}
        assert set(lane["state"]["enum"]) == set(TROUBLE)
        assert set(self.schemas["Forecast"]["properties"]["would"]["enum"]) == {each.value for each in Would}
        for errand in ("Replay", "Drop"):
            states = self.schemas[errand]["properties"]["state"]["enum"]
            assert set(states) == {each.value for each in State}
        assert lane["tenantId"]["pattern"] == TENANT_ID.replace("\\Z", "$")

    def test_whatever_can_be_answered_is_described_to_the_last_field(self) -> None:
        for name, schema in self.schemas.items():
            if schema["type"] == "object":
                assert schema["additionalProperties"] is False, name


class ApiTests(Served):
    timeout = 300

    def test_it_has_every_call_and_no_other(self) -> None:
        described = {
            (method.upper(), path)
            for path, calls in description()["paths"].items()
            for method in calls
            if method in METHODS
        }
        assert described == {(route.method, route.path) for route in self.resource._routes.routes}

    async def test_the_api_does_what_it_says(self) -> None:
        """Answers against their schemas, statuses, content types; what is refused and what is taken; methods
        that there are not; and that nothing goes without the token."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        for number, reason in enumerate(("rejected", "in_doubt", "broker_expired", "invalid_message")):
            self.queue.letters.append(letter(f"m-{number}", f"t{number}", reason=reason, code=131047))
        self.queue.letters.append(letter(body=b"no message", reason=None))
        for tenant in range(3):
            for number in range(3):
                self.stage.offer(f"m-{number}", tenant_id=f"t{tenant}")
        output, errors, status = await getProcessOutputAndValue(
            sys.executable,
            [
                *("-m", "schemathesis.cli", "run", f"{self.url}/api/v1/openapi.json"),
                *("--header", f"Authorization: Bearer {TOKEN}"),
                *("--checks", "all", "--max-examples", "25", "--generation-deterministic", "--no-color"),
            ],
            env=dict(os.environ),
            path=folder,  # it leaves a folder of its own where it is started
        )

        assert status == 0, (output + errors).decode()
        assert b"skipped" not in output.split(b"Coverage")[1].split(b"Fuzzing")[0], output.decode()
        assert len([call for call in self.calls if call["status"] == 401]) > 0
