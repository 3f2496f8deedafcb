"""Publish the definitions that installed packages provide."""

from __future__ import annotations

from pathlib import Path

import structlog

from instance_service.resources.definitions.manifests import find_requests
from instance_service.store import definitions as store
from instance_service.use_cases.definitions.publication import publish_definition
from instance_service.use_cases.dependencies import Dependencies
from servicekit.context import RequestContext, new_traceparent

_BUILT_IN = Path(__file__).parents[2] / "builtin"
_AUTHOR = "instance-service"
_log = structlog.get_logger(__name__)


async def publish_plugins(deps: Dependencies, tenants: tuple[str, ...]) -> None:
    """Publish the definitions of installed packages and the built-in library; two replicas may do so at once.

    A definition that fails is logged and skipped, so that no package can keep this service from starting.
    """
    requests = list(find_requests())
    for tenant_id in tenants:
        context = RequestContext(tenant_id, _AUTHOR, deps.ids(), new_traceparent())
        known = await _known(deps, tenant_id, [content_hash for _, _, content_hash in requests])
        for manifest, request, content_hash in requests:
            try:
                if content_hash not in known:  # known content was checked when it was published
                    await publish_definition(deps, context, request, is_reported=False)
                if Path(manifest).parent == _BUILT_IN:
                    deps.built_in.add(content_hash)
            except Exception as error:  # noqa: BLE001 - whatever fails, the service must still start
                _log.error("definition refused", manifest=manifest, tenant=tenant_id, error=repr(error))


async def _known(deps: Dependencies, tenant_id: str, content_hashes: list[str]) -> set[str]:
    async with deps.database.read(tenant_id) as connection:
        return await store.list_known_hashes(connection, tenant_id, content_hashes)
