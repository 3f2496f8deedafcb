"""Keep the stream of each tenant: in the tenant's own NATS account, filled by the server from the services' streams.

The services' account reaches nothing else of a tenant's account than the configuration of this stream.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client

from servicekit.broker import MAXIMUM_AGE, Broker

TENANT_STREAM = "EVENTS"  # in the account of a tenant: all its events, for its subscribers
STREAM_ACTIONS = ("CREATE", "UPDATE")
SOURCE_ROOT = "optaic-source"  # in a tenant's account: requests of the server to the services' account
DELIVERY_ROOT = "optaic-deliver"  # the events on their way into a tenant's stream
_MANAGEMENT_ROOT = "optaic-tenants"
_INTERVAL = 30.0
_FIRST_PATIENCE = 10.0  # for streams whose services start at the same time: the server asks only rarely again
_EXISTS_OTHERWISE = 10058  # the error code of a stream name in use with another configuration
_REQUEST_TIMEOUT = 5.0
_log = structlog.get_logger(__name__)


def management_subject(tenant: str, action: str) -> str:
    """Return the subject in the services' account by which a tenant's stream is created or updated."""
    return f"{_MANAGEMENT_ROOT}.{tenant}.STREAM.{action}.{TENANT_STREAM}"


class TenantStreams:
    """The streams of tenants; it creates those that are missing and restores the configuration of altered ones."""

    def __init__(self, broker: Broker, tenants: Sequence[str], sources: Sequence[str]) -> None:
        self._broker = broker
        self._tenants = tenants
        self._sources = sources
        self._problems: dict[str, str] = {}  # by tenant; each is logged once

    async def run(self) -> None:
        """Compare all streams now, after each reconnection and regularly, for ever."""
        while True:
            await self._broker.ready()
            try:
                client = self._broker.client
                await self._await_sources(client)
                for tenant in self._tenants:
                    await self._ensure(client, tenant)
            except Exception as error:  # noqa: BLE001 - nothing may end the keeper
                _log.warning("streams of tenants not compared", error=repr(error))
            await self._broker.wait_for_end(_INTERVAL)

    async def _await_sources(self, client: Client) -> None:
        missing = set(self._sources)
        try:
            async with asyncio.timeout(_FIRST_PATIENCE):
                while True:
                    for stream in sorted(missing):
                        answer = json.loads(
                            (
                                await client.request(
                                    f"$JS.API.STREAM.INFO.{stream}", timeout=_REQUEST_TIMEOUT
                                )
                            ).data
                        )
                        if "error" not in answer:
                            missing.discard(stream)
                    if not missing:
                        return
                    await asyncio.sleep(0.2)
        except TimeoutError:
            _log.info(
                "streams of services not there yet; the streams of tenants wait for them",
                missing=sorted(missing),
            )

    async def _ensure(self, client: Client, tenant: str) -> None:
        problem = ""
        try:
            answer = await self._request(client, tenant, "CREATE")
            if answer.get("error", {}).get("err_code") == _EXISTS_OTHERWISE:
                answer = await self._request(client, tenant, "UPDATE")
                _log.warning("configuration of a tenant's stream restored", tenant_id=tenant)
            problem = answer.get("error", {}).get("description", "")
        except nats.errors.NoRespondersError:
            problem = "the NATS server has no account for it; print the accounts with `python -m devstack.nats_configuration`"
        except nats.errors.TimeoutError:
            problem = "the NATS server does not answer, or refuses the request"
        if problem != self._problems.get(tenant, ""):
            self._problems[tenant] = problem
            if problem:
                _log.warning("subscribers of a tenant get no events", tenant_id=tenant, error=problem)
            else:
                _log.info("subscribers of a tenant get events again", tenant_id=tenant)

    async def _request(self, client: Client, tenant: str, action: str) -> dict[str, Any]:
        payload = json.dumps(make_config(tenant, self._sources)).encode()
        answer = await client.request(management_subject(tenant, action), payload, timeout=_REQUEST_TIMEOUT)
        found: dict[str, Any] = json.loads(answer.data)
        return found


def make_config(tenant: str, sources: Sequence[str]) -> dict[str, Any]:
    """Return the configuration of a tenant's stream: it has no subjects, so nothing but its sources fills it."""
    return {
        "name": TENANT_STREAM,
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "num_replicas": 1,
        "max_age": MAXIMUM_AGE * 10**9,
        "sources": [
            {
                "name": stream,
                "filter_subject": f"optaic.{tenant}.>",
                "external": {"api": SOURCE_ROOT, "deliver": f"{DELIVERY_ROOT}.{tenant}"},
            }
            for stream in sources
        ],
    }
