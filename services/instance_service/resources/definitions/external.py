"""Check what a definition version declares that reads, or has, the data of another system."""

from __future__ import annotations

from collections.abc import Iterator

from instance_service.resources.conversion import json_of
from optaic.definition.v1.definition_pb2 import (
    DEFINITION_KIND_PIPELINE,
    DEFINITION_KIND_STORE,
    DefinitionVersion,
)
from optaic.rules.sources import URL
from servicekit.errors import FieldViolation


def external_violations(version: DefinitionVersion, path: str) -> Iterator[FieldViolation]:
    """Yield a violation for each thing that an external version lacks; the version's kind must be set."""
    if not version.is_external:
        return
    if version.kind == DEFINITION_KIND_STORE:
        if not _requires_url(version):
            text = f"must require the property `{URL}`, of type string: where the data is that an external store reads"
            yield FieldViolation(f"{path}.parameters_schema", text, "INVALID_SCHEMA")
    elif version.kind != DEFINITION_KIND_PIPELINE:
        text = "can be true for a STORE or a PIPELINE only; remove it"
        yield FieldViolation(f"{path}.is_external", text, "INVALID_ARGUMENT")
    elif not version.reads_nothing:
        text = "must be true while is_external is true, because nothing is computed"
        yield FieldViolation(f"{path}.reads_nothing", text, "INVALID_ARGUMENT")


def _requires_url(version: DefinitionVersion) -> bool:
    try:
        schema = json_of(version.parameters_schema)
    except ValueError:  # a number that JSON cannot express; the check of the schema reports it
        return True
    required, properties = schema.get("required"), schema.get("properties")
    if not isinstance(required, list) or not isinstance(properties, dict) or URL not in required:
        return False
    given = properties.get(URL)
    return isinstance(given, dict) and given.get("type") == "string"
