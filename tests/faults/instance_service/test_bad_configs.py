"""Configs that no schema allows, by the thousand: each is refused with a path, and nothing is written."""

import os
import random
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from google.protobuf import json_format

from devstack.postgres import Postgres
from instance_service.use_cases.instances.changes import create_instance
from optaic.definition.v1.definition_service_pb2 import PublishDefinitionRequest
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.instance_service_pb2 import CreateInstanceRequest
from servicekit import context
from servicekit.context import RequestContext
from servicekit.errors import FieldViolation, InvalidArgumentError
from support.instance_service import RunningInstanceService, instance_service

pytestmark = pytest.mark.faults
_COUNT = 10_000 if os.environ.get("OPTAIC_FAULTS") == "full" else 200
_EXPRESSION = {"type": "string", "format": "optaic-expression"}
_SCHEMA = {
    "type": "object",
    "properties": {
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "ratio": {"type": "number", "exclusiveMinimum": 0},
        "word": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 8},
        "day": {"type": "string", "format": "date"},
        "formula": _EXPRESSION,
        "choice": {"enum": ["one", "two"]},
        "many": {"type": "array", "items": {"$ref": "#/$defs/part"}, "minItems": 1, "uniqueItems": True},
        "part": {"$ref": "#/$defs/part"},
    },
    "required": ["count", "word"],
    "additionalProperties": False,
    "$defs": {
        "part": {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}
    },
}  # fmt: skip
_GOOD: dict[str, Any] = {
    "count": 3, "ratio": 0.5, "word": "abc", "day": "2024-02-29", "formula": "REF(close, 1)", "choice": "one",
    "many": [{"a": True}], "part": {"a": False},
}  # fmt: skip
# The kinds of definitions, and where an instance has the config of one.
_KINDS = {
    "PIPELINE": "instance.dataset.pipeline",
    "STORE": "instance.dataset.store",
    "ACCESSOR": "instance.dataset.accessor",
    "OP": "instance",
    "OP_MACRO": "instance",
    "ML_MODULE": "instance",
    "PORTFOLIO_OPTIMIZER": "instance",
}
_SPECS = {
    "OP": "experiment",
    "OP_MACRO": "experiment",
    "ML_MODULE": "model",
    "PORTFOLIO_OPTIMIZER": "portfolioOptimizer",
}
_WRONG: dict[str, list[Any]] = {
    "count": [0, 10, 1.5, "3", None, True, [], {}],
    "ratio": [0, -1, "1", False, []],
    "word": ["", "ABC", "abcdefghi", 3, "a" * 5_000 + "!", None],
    "day": ["2023-02-29", "today", "20240101", 20240101],
    "formula": ["", "NOPE(close)", "REF(close)", "close +", "((((", 1],
    "choice": ["three", 1, None, ["one"]],
    "many": [[], [{}], [{"a": True}, {"a": True}], [{"a": 1}], {"a": True}, "x"],
    "part": [{}, {"a": "x"}, {"a": True, "b": 1}, [], 3],
}


_REQUIRED = {"": {"count", "word"}, "part": {"a"}, "many[0]": {"a"}}
_PART = re.compile(r"\.([A-Za-z_$][A-Za-z0-9_$-]*)|\[(\d+)\]")


def _bad_configs(seed: int) -> Iterator[tuple[dict[str, Any], set[str]]]:
    """Yield configs and the top-level names that are wrong with them; always at least one."""
    choices = random.Random(seed)
    for _ in range(_COUNT):
        config = {
            name: value
            for name, value in _GOOD.items()
            if name in {"count", "word"} or choices.random() < 0.5
        }
        wrong = set(choices.sample(sorted(_WRONG), choices.randint(0, 3)))
        for name in wrong:
            config[name] = choices.choice(_WRONG[name])
        if not wrong or choices.random() < 0.2:
            name = f"odd{choices.randint(0, 99)}"
            config[name] = choices.choice([None, 1, "x", [[[]]], {"a": {"b": 1}}])
            wrong.add(name)
        if choices.random() < 0.1:
            missing = choices.choice(["count", "word"])
            config.pop(missing)
            wrong.add(missing)
        yield config, wrong


def _is_place(violation: FieldViolation, config: Mapping[str, Any], path: str) -> bool:
    """Return whether a violation is where something is, or where something that is required is not."""
    parts = _PART.findall(violation.field.removeprefix(path))
    assert (
        "".join(f".{name}" if name else f"[{index}]" for name, index in parts) == violation.field[len(path) :]
    )
    *above, (name, index) = parts
    node: Any = config
    for above_name, above_index in above:
        node = node[above_name] if above_name else node[int(above_index)]
    if violation.description != "is required":
        return name in node if name else int(index) < len(node)
    where = violation.field.removeprefix(path).rpartition(".")[0].removeprefix(".")
    return name not in node and name in _REQUIRED[where]


async def _publish(service: RunningInstanceService, kind: str) -> None:
    version: dict[str, Any] = {"version": "1.0.0", "parametersSchema": _SCHEMA}
    if kind == "OP_MACRO":
        version["opMacro"] = {"parameters": ["x"], "expression": "RANK(x)"}
    else:
        version["codeRef"] = "nowhere:Nothing"
    if kind == "OP":
        version["op"] = {"values": ["formula"], "numbers": ["count"]}
    given = {
        "name": f"STRICT_{kind}",
        "kind": f"DEFINITION_KIND_{kind}",
        "definitionVersion": version,
    }
    await service.definitions.PublishDefinition(json_format.ParseDict(given, PublishDefinitionRequest()))


def _instance(project_id: str, kind: str, config: dict[str, Any]) -> CreateInstanceRequest:
    named = {"definitionName": f"STRICT_{kind}", "config": config}
    given: dict[str, Any] = {"projectId": project_id, "name": "bad"}
    if kind in _SPECS:
        given |= {_SPECS[kind]: {}, **named}
    else:
        given["dataset"] = {"pipeline": {"definitionName": "sp500_prices"}, kind.lower(): named}
    return CreateInstanceRequest(instance=json_format.ParseDict(given, Instance()), request_id="")


async def test_no_bad_config_of_any_kind_gets_in(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    async with instance_service(nats_url, drift_interval_seconds=60) as service:
        project_id = (await service.project()).project_id
        for kind in _KINDS:
            await _publish(service, kind)
        before = await service.row_counts()
        caller = RequestContext(
            tenant_id="default", actor="tests", request_id="", traceparent="", read_tokens=()
        )
        for seed, (kind, path) in enumerate(_KINDS.items()):
            began = time.monotonic()
            for config, wrong in _bad_configs(seed):
                with context.bind(caller), pytest.raises(InvalidArgumentError) as refused:
                    await create_instance(service.app.deps, caller, _instance(project_id, kind, config))
                # A model, for one, also lacks its upstreams here; that is not the config's fault.
                violations = [
                    item for item in refused.value.field_violations if item.field.startswith(f"{path}.config")
                ]
                assert violations
                assert all(_is_place(item, config, f"{path}.config") for item in violations), violations
                assert {item.reason for item in violations} <= {"INVALID_CONFIG", "INVALID_EXPRESSION"}
                named = {
                    item.field.removeprefix(f"{path}.config.").partition(".")[0].partition("[")[0]
                    for item in violations
                }
                assert named == wrong, (config, violations)
            print(f"{kind}: {_COUNT} in {time.monotonic() - began:.0f} s")  # noqa: T201 - the log of a campaign
        assert await service.row_counts() == before
