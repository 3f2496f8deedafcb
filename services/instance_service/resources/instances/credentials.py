"""Refuse new URLs that contain credentials in clear text; older ones are hidden from clients."""

from __future__ import annotations

from instance_service.domain.schema_messages import REFERENCE
from instance_service.jsonschema_adapter import field_path
from optaic.instance.v1.instance_pb2 import Instance
from redaction import has_credentials, redact_urls
from redaction.messages import texts_of
from servicekit.errors import FieldViolation


def credential_violations(instance: Instance, current: Instance | None) -> list[FieldViolation]:
    """Return a violation for each URL with credentials that the instance did not have before."""
    kept = set() if current is None else {each.text for each in texts_of(current)}
    text = f"is a URL with credentials in clear text; write {REFERENCE} in their place"
    return [
        FieldViolation(redact_urls(field_path("instance", each.path)), text, "INVALID_CONFIG")
        for each in texts_of(instance)
        if each.text not in kept and has_credentials(each.text)
    ]
