"""Compare two versions of a definition; no database is read."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import replace

from instance_service.domain.contracts import owner_kind
from instance_service.domain.fingerprints import canonical_json
from instance_service.domain.flows import flow_kinds
from instance_service.domain.schema_bounds import formats
from instance_service.domain.schema_diff import Change, diff, token
from instance_service.domain.secret_properties import PASSWORD
from instance_service.domain.version_diff import (
    Check,
    Rules,
    check_changes,
    flow_changes,
    output_changes,
    rule_changes,
)
from instance_service.jsonschema_adapter import KNOWN_FORMATS
from instance_service.resources.conversion import json_of
from instance_service.resources.definitions.operators import signature_of
from instance_service.resources.definitions.requirements import constraints_schema, rules_of
from optaic.common.v1.flow_pb2 import FlowKind
from optaic.definition.v1.definition_pb2 import (
    DEFINITION_KIND_PORTFOLIO_OPTIMIZER,
    ENFORCEMENT_BLOCK,
    DefinitionKind,
    DefinitionVersion,
)
from servicekit.enums import enum_word

SCHEMAS = ("parameters_schema", "input_schema", "output_schema")


def version_changes(old: DefinitionVersion, new: DefinitionVersion) -> list[Change]:
    """Return every difference that matters to instances or their dependants: schemas first, then the rest."""
    owner = owner_kind(enum_word(DefinitionKind, new.kind))
    return [
        *_schema_changes(old, new),
        *rule_changes(_rules(owner, old), _rules(owner, new)),
        *check_changes(_checks(old), _checks(new)),
        *flow_changes(_flows(owner, old), _flows(owner, new)),
        *_call_changes(old, new),
        *_external_changes(old, new),
    ]


def unchecked_formats(version: DefinitionVersion) -> list[tuple[str, str]]:
    """Return each `format` in the version's schemas that no check knows: its JSON Pointer and an explanation."""
    found = []
    for name in SCHEMAS:
        for path, word in sorted(formats(json_of(getattr(version, name))), key=str):
            if word not in KNOWN_FORMATS and word != PASSWORD:
                near = difflib.get_close_matches(word, KNOWN_FORMATS, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                text = f"{word[:100]!r} is not a format of JSON Schema 2020-12, so it checks nothing{hint}"
                found.append(("".join(f"/{token(str(part))}" for part in (name, *path)), text))
    return found


def _schema_changes(old: DefinitionVersion, new: DefinitionVersion) -> Iterator[Change]:
    for name in SCHEMAS:
        before, after = (json_of(getattr(version, name)) for version in (old, new))
        changes = output_changes(before, after) if name == "output_schema" else diff(before, after)
        if name == "parameters_schema" and new.kind == DEFINITION_KIND_PORTFOLIO_OPTIMIZER:
            changes.extend(diff(constraints_schema(before), constraints_schema(after)))
        yield from (replace(change, path=f"/{name}{change.path}") for change in dict.fromkeys(changes))


def _call_changes(old: DefinitionVersion, new: DefinitionVersion) -> Iterator[Change]:
    """Yield how calls of an operator or macro change; expressions pass arguments by position."""
    if old.HasField("op") and new.HasField("op"):
        before, after = signature_of(old), signature_of(new)
        is_kept = list(new.op.numbers[: len(old.op.numbers)]) == list(old.op.numbers)
        fits = is_kept and before.values == after.values and before.fewest >= after.fewest
        if before.usage != after.usage:  # usage includes the defaults, which stand in the schema
            yield Change("/op", f"called {after.usage}, no longer {before.usage}", is_breaking=not fits)
    given, taken = (len(version.op_macro.parameters) for version in (old, new))
    if given != taken:
        yield Change("/op_macro/parameters", f"takes {taken} arguments, no longer {given}", is_breaking=True)


def _external_changes(old: DefinitionVersion, new: DefinitionVersion) -> Iterator[Change]:
    """Yield that another system begins, or ends, to write the data; a dataset cannot follow such a change."""
    if old.is_external != new.is_external:
        now = "now" if new.is_external else "no longer"
        yield Change("/is_external", f"the data is {now} another system's", is_breaking=True)


def _rules(owner: str, version: DefinitionVersion) -> Rules:
    return None if version.reads_nothing else rules_of(owner, version)


def _flows(owner: str, version: DefinitionVersion) -> tuple[str, ...]:
    return flow_kinds(owner, [enum_word(FlowKind, flow.flow_kind) for flow in version.flow_specs])


def _checks(version: DefinitionVersion) -> dict[str, Check]:
    return {
        contract.name: Check(
            canonical_json([contract.check, json_of(contract.parameters)]),
            blocks=contract.enforcement == ENFORCEMENT_BLOCK,
        )
        for contract in version.guardrail_contracts
    }
