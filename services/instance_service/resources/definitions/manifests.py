"""Find and check the definition manifests of installed packages, without importing their code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import structlog

from instance_service.resources.definitions.content import hash_of
from optaic.definition.v1.definition_service_pb2 import PublishDefinitionRequest
from optaic.plugins.registry import list_entry_points, read_manifests
from servicekit.contracts import check_contract

_log = structlog.get_logger(__name__)


def find_requests() -> Iterator[tuple[str, PublishDefinitionRequest, str]]:
    """Yield the location of each readable manifest, one definition of it and its hash, ordered by package name."""
    for manifest, requests in read_manifests(list_entry_points(_report), _report):
        try:
            for request in requests:
                check_contract(request)
            found = [(str(manifest), request, hash_of(request)) for request in requests]
        except Exception as error:  # noqa: BLE001 - a file of another package may hold anything
            _report("manifest refused", {"manifest": str(manifest), "error": repr(error)})
        else:
            yield from found


def _report(event: str, facts: dict[str, Any]) -> None:
    _log.error(event, **facts)
