"""Check and hash the content of a definition version before it is stored; no database is read."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf import json_format

from instance_service.domain import errors
from instance_service.domain.contracts import (
    CHECKS,
    Guardrail,
    aggregation_violations,
    flow_violations,
    guardrail_violations,
    rule_violations,
)
from instance_service.domain.fingerprints import content_hash
from instance_service.domain.rules import Rule
from instance_service.jsonschema_adapter import config_violations, schema_violations
from instance_service.resources.conversion import json_of
from instance_service.resources.definitions.changes import SCHEMAS
from instance_service.resources.definitions.external import external_violations
from instance_service.resources.definitions.macros import shape_violations
from optaic.common.v1.flow_pb2 import FLOW_KIND_MONITORING, FlowKind
from optaic.definition.v1.definition_pb2 import (
    DEFINITION_STATE_ACTIVE,
    DEFINITION_STATE_DRAFT,
    DefinitionKind,
    DefinitionVersion,
)
from optaic.definition.v1.definition_service_pb2 import PublishDefinitionRequest
from servicekit.enums import enum_word
from servicekit.errors import FieldViolation
from servicekit.events import check_size

# The content excludes the version's name, its author and its time of creation.
_NOT_CONTENT = (
    "definition_version_id",
    "definition_id",
    "content_hash",
    "state",
    "create_time",
    "description",
    "publication_report",
    "is_built_in",
    "author",
)


def content_violations(version: DefinitionVersion, path: str) -> Iterator[FieldViolation]:
    """Yield every violation in a version's schemas, rules, checks and flows; the version's kind must be set."""
    kind = enum_word(DefinitionKind, version.kind)
    for name in SCHEMAS:
        where = f"{path}.{name}"
        try:
            schema = json_of(getattr(version, name))
        except ValueError as error:
            yield FieldViolation(where, str(error), "INVALID_SCHEMA")
        else:
            yield from schema_violations(schema, where)
    rules = [
        Rule(rule.role, tuple(rule.instance_kinds), rule.min_count, rule.max_count)
        for rule in version.compatibility_rules
    ]
    yield from rule_violations(kind, rules, f"{path}.compatibility_rules")
    if rules and version.reads_nothing:
        text = "must be empty while reads_nothing is true; remove the rules"
        yield FieldViolation(f"{path}.compatibility_rules", text, "INVALID_ARGUMENT")
    yield from external_violations(version, path)
    yield from _guardrail_violations(kind, version, f"{path}.guardrail_contracts")
    flows = [enum_word(FlowKind, flow.flow_kind) for flow in version.flow_specs]
    yield from flow_violations(kind, flows, f"{path}.flow_specs")
    contract = version.status_aggregation_contract
    required = [enum_word(FlowKind, flow_kind) for flow_kind in contract.required_flows]
    where = f"{path}.status_aggregation_contract"
    yield from aggregation_violations(kind, flows, contract.aggregation_method, required, where)
    for index, flow in enumerate(version.flow_specs):
        if kind == "pipeline" and flow.flow_kind == FLOW_KIND_MONITORING and flow.is_default:
            text = (
                "cannot be set on a monitoring flow; a dataset or signal enables it with `monitoring_enabled`"
            )
            yield FieldViolation(f"{path}.flow_specs[{index}].is_default", text, "INVALID_ARGUMENT")


def _guardrail_violations(kind: str, version: DefinitionVersion, path: str) -> Iterator[FieldViolation]:
    guardrails = []
    for index, contract in enumerate(version.guardrail_contracts):
        where = f"{path}[{index}].parameters"
        try:
            parameters = json_of(contract.parameters)
        except ValueError as error:
            yield FieldViolation(where, str(error), "INVALID_ARGUMENT")
            continue
        guardrails.append(Guardrail(contract.name, contract.check, parameters, bool(contract.enforcement)))
        if contract.check in CHECKS:
            key = f"guardrail {contract.check}"
            for violation in config_violations(key, CHECKS[contract.check], parameters, where):
                yield FieldViolation(violation.field, violation.description, "INVALID_ARGUMENT")
    yield from guardrail_violations(kind, guardrails, path)


def hash_of(request: PublishDefinitionRequest) -> str:
    """Return the hash of the content in a publish request, whether or not the content is valid."""
    return _hash(_given(request))


def _given(request: PublishDefinitionRequest) -> DefinitionVersion:
    version = DefinitionVersion()
    version.CopyFrom(request.definition_version)
    version.definition_name = request.name
    version.kind = request.kind
    version.is_built_in, version.author = False, ""
    return version


def _hash(version: DefinitionVersion) -> str:
    content = DefinitionVersion()
    content.CopyFrom(version)
    for name in _NOT_CONTENT:
        content.ClearField(name)  # type: ignore[arg-type]  # the type stubs require literals
    return content_hash(json_format.MessageToDict(content, preserving_proto_field_name=True))


def complete_version(request: PublishDefinitionRequest) -> DefinitionVersion:
    """Return the version to publish, with its content hash and its state.

    Raises:
        InvalidArgumentError: The content violates rules; every violation is listed.
    """
    version = _given(request)
    violations = shape_violations(version)
    if not version.version:
        violations.append(FieldViolation("definition_version.version", "is required", "INVALID_ARGUMENT"))
    violations.extend(content_violations(version, "definition_version"))
    if violations:
        raise errors.refusal(violations)
    check_size(version, "definition_version")
    version.content_hash = _hash(version)
    version.state = DEFINITION_STATE_DRAFT if request.draft else DEFINITION_STATE_ACTIVE
    return version
