"""URLs with credentials in clear: new ones are refused wherever they stand, those of before are hidden from readers."""

from __future__ import annotations

from instance_service.domain.schema_words import REFERENCE
from instance_service.jsonschema_adapter import field_path
from optaic.instance.v1.instance_pb2 import Instance
from redaction import has_credentials, redact_urls
from redaction.messages import texts_of
from servicekit.errors import FieldViolation


def credential_violations(instance: Instance, current: Instance | None) -> list[FieldViolation]:
    """Return where an instance says credentials that it has not said before."""
    kept = set() if current is None else {each.text for each in texts_of(current)}
    text = f"is a URL with credentials in clear: write {REFERENCE} in their place"
    return [
        FieldViolation(redact_urls(field_path("instance", each.path)), text, "INVALID_CONFIG")
        for each in texts_of(instance)
        if each.text not in kept and has_credentials(each.text)
    ]
