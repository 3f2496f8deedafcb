"""Definitions of every kind that an instance may name itself, small enough to read."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format

from optaic.definition.v1.definition_pb2 import DefinitionVersion
from optaic.definition.v1.definition_service_pb2 import PublishDefinitionRequest
from support.instance_service import RunningInstanceService

_EXPRESSION = {"type": "string", "format": "optaic-expression", "minLength": 1, "maxLength": 10000}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


MANIFESTS: dict[str, dict[str, Any]] = {
    "BLEND": {
        "kind": "DEFINITION_KIND_OP",
        "op": {"values": ["x"], "numbers": ["n"]},
        "parametersSchema": _object(
            ["x"], x=_EXPRESSION, n={"type": "integer", "minimum": 1, "maximum": 250}
        ),
        "compatibilityRules": [{"role": "input", "instanceKinds": ["dataset", "signal"], "minCount": 1}],
    },
    "linear": {
        "kind": "DEFINITION_KIND_ML_MODULE",
        "parametersSchema": _object(
            ["features", "target"],
            features={
                "type": "array",
                "minItems": 1,
                "items": _object(["name", "expression"], name={"type": "string"}, expression=_EXPRESSION),
            },
            target=_object(
                ["expression", "horizon"],
                expression=_EXPRESSION,
                horizon={"type": "integer", "minimum": 1},
            ),
            alpha={"type": "number", "minimum": 0},
        ),
        "compatibilityRules": [
            {"role": "features", "instanceKinds": ["dataset", "signal"], "minCount": 1, "maxCount": 2},
            {"role": "target", "instanceKinds": ["dataset"], "maxCount": 1},
        ],
    },
    "halves": {
        "kind": "DEFINITION_KIND_PORTFOLIO_OPTIMIZER",
        "parametersSchema": {
            **_object([], risk_aversion={"type": "number", "exclusiveMinimum": 0}),
            "$defs": {"constraints": _object([], max_weight={"type": "number", "maximum": 1})},
        },
    },
}
MODEL_CONFIG = {
    "features": [{"name": "momentum", "expression": "REF(close, 21) / close"}],
    "target": {"expression": "close", "horizon": 21},
}


async def publish(
    service: RunningInstanceService,
    name: str,
    version: str = "1.0.0",
    *,
    draft: bool = False,
    **changes: Any,
) -> DefinitionVersion:
    """Publish one of the definitions above."""
    manifest = {**MANIFESTS[name], **changes}
    content = {
        "version": version,
        "codeRef": "nowhere:Nothing",
        **{key: value for key, value in manifest.items() if key != "kind"},
    }
    request = json_format.ParseDict(
        {"name": name, "kind": manifest["kind"], "definitionVersion": content}, PublishDefinitionRequest()
    )
    request.draft = draft
    published: DefinitionVersion = await service.definitions.PublishDefinition(request)
    return published


def experiment(project_id: str, name: str, *inputs: str, **fields: Any) -> dict[str, Any]:
    """Return an experiment as JSON."""
    return {
        "projectId": project_id,
        "name": name,
        "experiment": {},
        "definitionName": "BLEND",
        "config": {"x": "close", "n": 5},
        "upstreamRefs": [{"resourceId": upstream, "role": "input"} for upstream in inputs],
        **fields,
    }


def model(project_id: str, name: str, features: str, target: str = "", **fields: Any) -> dict[str, Any]:
    """Return a model as JSON."""
    refs = [{"resourceId": features, "role": "features"}]
    refs += [{"resourceId": target, "role": "target"}] if target else []
    return {
        "projectId": project_id,
        "name": name,
        "model": {},
        "definitionName": "linear",
        "config": MODEL_CONFIG,
        "upstreamRefs": refs,
        **fields,
    }


def optimizer(project_id: str, name: str, signal: str, covariance: str = "", **fields: Any) -> dict[str, Any]:
    """Return a portfolio optimizer as JSON."""
    refs = [{"resourceId": signal, "role": "signal"}]
    refs += [{"resourceId": covariance, "role": "covariance"}] if covariance else []
    return {
        "projectId": project_id,
        "name": name,
        "portfolioOptimizer": {},
        "definitionName": "halves",
        "upstreamRefs": refs,
        **fields,
    }
