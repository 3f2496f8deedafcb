"""What a dataset or signal is composed of: pins definition versions and checks configs; it stores nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.struct_pb2 import Struct

from instance_service.domain.flows import COMPONENT_KINDS
from instance_service.jsonschema_adapter import config_violations
from instance_service.store import instances as store
from instance_service.store.tables import Connection
from instance_service.use_cases.shapes import json_of
from optaic.definition.v1.definition_pb2 import DEFINITION_STATE_RETIRED, DefinitionVersion
from optaic.instance.v1.spec_pb2 import ComponentSpec, DatasetSpec
from servicekit.errors import FieldViolation, NotFoundError
from servicekit.ids import is_id

_DEFAULT_NAMES = {"store": "delta", "accessor": "simple"}


@dataclass(frozen=True)
class Component:
    """One resolved component."""

    kind: str
    spec: ComponentSpec
    version: DefinitionVersion
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Composition:
    """The three components of a dataset or signal by kind."""

    components: Mapping[str, Component]

    @property
    def pipeline(self) -> DefinitionVersion:
        """The version that rules upstreams and status."""
        return self.components["pipeline"].version

    def settings(self) -> dict[str, object]:
        """Return what affects results."""
        return {
            kind: {"definition": component.version.content_hash, "config": component.config}
            for kind, component in self.components.items()
        }


async def compose(
    connection: Connection, tenant_id: str, dataset: DatasetSpec, path: str, violations: list[FieldViolation]
) -> Composition | None:
    """Fill in definitions and versions of a composition, in place, and check its configs.

    Returns None where a component names no definition; the violation is recorded then.

    Raises:
        NotFoundError: A definition or version does not exist.
    """
    specs: list[ComponentSpec] = [getattr(dataset, kind) for kind in COMPONENT_KINDS]
    for kind, spec in zip(COMPONENT_KINDS, specs, strict=True):
        if spec.track_newest:
            spec.ClearField("definition_version_id")
            spec.ClearField("definition_version")
        if not (spec.definition_id or spec.definition_name or spec.definition_version_id):
            spec.definition_name = _DEFAULT_NAMES.get(kind, "")
        if not (spec.definition_id or spec.definition_name or spec.definition_version_id):
            text = "definition_id or definition_name is required"
            violations.append(FieldViolation(f"{path}.{kind}", text, "INVALID_SPEC"))
            return None
    versions = await _resolve(connection, tenant_id, specs, path)
    components: dict[str, Component] = {}
    for kind, spec, version in zip(COMPONENT_KINDS, specs, versions, strict=True):
        where = f"{path}.{kind}.config"
        try:
            config = json_of(spec.config)
            schema = json_of(version.parameters_schema)
        except ValueError as error:
            violations.append(FieldViolation(where, str(error), "INVALID_CONFIG"))
            config = {}
        else:
            violations.extend(config_violations(version.content_hash, schema, config, where))
        if version.state == DEFINITION_STATE_RETIRED and not spec.definition_version_id:
            violations.append(FieldViolation(f"{path}.{kind}", "this version is retired", "INVALID_SPEC"))
        spec.definition_id = version.definition_id
        spec.definition_name = version.definition_name
        spec.definition_version_id = version.definition_version_id
        spec.definition_version = version.version
        if not spec.HasField("config"):
            spec.config.CopyFrom(Struct())
        components[kind] = Component(kind, spec, version, config)
    return Composition(components)


async def _resolve(
    connection: Connection, tenant_id: str, specs: list[ComponentSpec], path: str
) -> list[DefinitionVersion]:
    missing = [
        (kind, spec)
        for kind, spec in zip(COMPONENT_KINDS, specs, strict=True)
        if (spec.definition_id and not is_id(spec.definition_id))
        or (spec.definition_version_id and not is_id(spec.definition_version_id))
    ]
    found: dict[int, bytes] = {}
    if not missing:
        wanted = [
            (
                kind,
                spec.definition_id,
                spec.definition_name,
                spec.definition_version_id,
                spec.definition_version,
            )
            for kind, spec in zip(COMPONENT_KINDS, specs, strict=True)
        ]
        found = await store.resolve_versions(connection, tenant_id, wanted)
        missing = [
            (kind, spec)
            for position, (kind, spec) in enumerate(zip(COMPONENT_KINDS, specs, strict=True))
            if position not in found
        ]
    if missing:
        violations = [
            FieldViolation(
                f"{path}.{kind}", f"there is no {kind} definition {_wanted(spec)}", "DEFINITION_NOT_FOUND"
            )
            for kind, spec in missing
        ]
        raise NotFoundError(
            "DEFINITION_NOT_FOUND",
            "; ".join(violation.description for violation in violations),
            field_violations=violations,
        )
    return [DefinitionVersion.FromString(found[position]) for position in range(len(specs))]


def _wanted(spec: ComponentSpec) -> str:
    parts = (spec.definition_name, spec.definition_id, spec.definition_version, spec.definition_version_id)
    return " ".join(part for part in parts if part)
