"""Macros that nobody could call, by the thousand: each is refused where its mistake is, and nothing is written."""

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf import json_format

from devstack.postgres import Postgres
from instance_service.use_cases.definitions.publication import publish_definition
from optaic.definition.v1.definition_service_pb2 import PublishDefinitionRequest
from servicekit.context import RequestContext
from servicekit.contracts import check_contract
from servicekit.errors import InvalidArgumentError
from support.instance_service import TENANT, RunningInstanceService, instance_service

pytestmark = pytest.mark.faults
_COUNT = 10_000 if os.environ.get("OPTAIC_FAULTS") == "full" else 200
_VERSION = "definition_version"
_MACRO = f"{_VERSION}.op_macro"
_TERMS = ["x", "n", "2", "REF(x, 3)", "RANK(x)", "ONCE(x)", "TWICE(x)", "(x + 1)", "-x"]
_BAD_TERMS = [
    "*",
    "x x",
    "(",
    "x)",
    "#",
    "X",  # a column in upper case
    "1.2.3",
    "NOPE(x)",
    "RANK()",
    "RANK(x, x, x)",
    "REF(x)",
    "REF(x, 1.5)",
    "REF(x, -1)",
    "ONCE()",
    "ONCE(x, 2)",
    "SELF(x, 2)",  # itself
    "ROUND_ABOUT(x)",  # by way of another, which calls the version before
    "TWICE(SELF(x, 2))",
    "(" * 200 + "x" + ")" * 200,
    "x + " * 3_000 + "x",
]  # fmt: skip
_BAD_NAMES = ["self", "Self", "1SELF", "SE LF", "SE-LF", "", "REF", "RANK", "A" * 129]
_BAD_PARAMETERS = ["X", "xY", "1x", "", "x y", "x-y", "é", "p" * 65]


@dataclass
class _Bad:
    """A macro, and in which fields it is wrong; at least one."""

    name: str = "SELF"
    parameters: list[str] = field(default_factory=lambda: ["x", "n"])
    expression: str = "x + n"
    others: dict[str, Any] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)

    def request(self) -> PublishDefinitionRequest:
        macro = {"parameters": self.parameters, "expression": self.expression}
        version = {"version": "2.0.0", "opMacro": macro, **self.others}
        given = {"name": self.name, "kind": "DEFINITION_KIND_OP_MACRO", "definitionVersion": version}
        return json_format.ParseDict(given, PublishDefinitionRequest())


def _bad_macros(seed: int) -> Iterator[_Bad]:
    choices = random.Random(seed)
    for _ in range(_COUNT):
        bad = _Bad()
        terms = choices.choices(_TERMS, k=choices.randint(1, 4))
        mistake = choices.choice(["name", "parameter", "parameters", "expression", "expression", "other"])
        if mistake == "name":
            bad.name = choices.choice(_BAD_NAMES)
            bad.wrong = {"name"}
        elif mistake == "parameter":
            bad.parameters.insert(choices.randint(0, 2), choices.choice(_BAD_PARAMETERS))
            bad.wrong = {
                f"{_MACRO}.parameters[{index}]"
                for index, parameter in enumerate(bad.parameters)
                if parameter in _BAD_PARAMETERS
            }
        elif mistake == "parameters":
            many = [f"p{number}" for number in range(choices.randint(15, 40))]
            bad.parameters += choices.choice([["x"], ["n", "x"], many])
            bad.wrong = {f"{_MACRO}.parameters"}
        elif mistake == "expression":
            terms.insert(choices.randint(0, len(terms)), choices.choice(_BAD_TERMS))
            bad.wrong = {f"{_MACRO}.expression"}
        else:
            name, bad.others, wrong = choices.choice(_BAD_OTHERS)
            bad.wrong = {f"{_VERSION}.{name}{wrong}"}
        bad.expression = f" {choices.choice('+-*/')} ".join(terms)
        yield bad


_BAD_OTHERS: list[tuple[str, dict[str, Any], str]] = [
    ("code_ref", {"codeRef": "nowhere:Nothing"}, ""),
    ("version", {"version": ""}, ""),
    ("parameters_schema", {"parametersSchema": {"type": "nothing"}}, ".type"),
    ("parameters_schema", {"parametersSchema": {"properties": {"x": {"pattern": "("}}}}, ".properties.x.pattern"),
    ("output_schema", {"outputSchema": {"$ref": "#/$defs/none"}}, ".$ref"),
    ("flow_specs", {"flowSpecs": [{"flowKind": "FLOW_KIND_TRAINING"}]}, "[0].flow_kind"),
]  # fmt: skip


async def _publish_good(service: RunningInstanceService) -> None:
    for name, expression in (
        ("ONCE", "x * 2"),
        ("TWICE", "ONCE(ONCE(x))"),
        ("SELF", "x + n"),
        ("ROUND_ABOUT", "SELF(x, 1)"),
    ):
        good = _Bad(name, ["x", "n"] if name == "SELF" else ["x"], expression, {"version": "1.0.0"})
        await service.definitions.PublishDefinition(good.request())


async def _publish(service: RunningInstanceService, request: PublishDefinitionRequest) -> None:
    """Publish as a call does, without the way through the network."""
    check_contract(request)
    await publish_definition(service.app.deps, RequestContext(TENANT, "ada", "1", ""), request)


async def test_no_bad_macro_gets_in(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    async with instance_service(nats_url, drift_interval_seconds=60) as service:
        await _publish_good(service)
        before = await service.row_counts("definitions", "definition_versions")
        began = time.monotonic()
        for bad in _bad_macros(7):
            request = bad.request()
            with pytest.raises(InvalidArgumentError) as refused:
                await _publish(service, request)
            assert {item.field for item in refused.value.field_violations} == bad.wrong, (bad, refused.value)
        print(f"OP_MACRO: {_COUNT} macros in {time.monotonic() - began:.0f} s")  # noqa: T201 - the log of a campaign
        assert await service.row_counts("definitions", "definition_versions") == before
