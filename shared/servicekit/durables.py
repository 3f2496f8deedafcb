"""Keep a durable consumer as its service needs it: create it, notice every change of its configuration, put it right."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from servicekit.pull import ACK_WAIT

_INTERVAL = 10.0
_REQUEST_TIMEOUT = 5.0
_NOT_FOUND = 404
_MAX_ACK_PENDING = 1024
# What the broker adds by itself. Any other field with a value is somebody's change: a pause, another start, a push subject.
_DEFAULTS: Mapping[str, Any] = {"deliver_policy": "all", "replay_policy": "instant", "max_waiting": 512}
_IGNORED = {"metadata", "name", "num_replicas", "description"}
_log = structlog.get_logger(__name__)


@dataclass
class Durable:
    """The durable pull consumer `name` of a stream, which gets every event of some subjects from the oldest on."""

    stream: str
    name: str
    filter_subjects: Sequence[str]
    repairs: int = field(default=0, init=False)  # how often its configuration was put right

    async def ensure(self, client: Client) -> None:
        """Create it if it is missing, and put an altered configuration right."""
        found = await self._read(client)
        if found is None:
            await self._create(client)
            return
        differences = self.find_differences(found)
        if not differences:
            return
        self.repairs += 1
        _log.warning(
            "configuration of a consumer was altered; it is put right",
            consumer=self.name,
            stream=self.stream,
            fields=differences,
            repairs=self.repairs,
        )
        try:
            await self._create(client)
            found = await self._read(client)
            if found is not None and not self.find_differences(found):
                return
        except nats.js.errors.APIError as error:
            _log.info("a consumer must be created anew", consumer=self.name, error=repr(error))
        # Where it starts and how it delivers cannot be changed. A new one delivers the whole stream once more; the inbox
        # and the revisions of resources keep an event from being applied twice.
        await client.jetstream(timeout=_REQUEST_TIMEOUT).delete_consumer(self.stream, self.name)
        await self._create(client)

    async def watch(self, client: Client) -> None:
        """Put altered configurations right regularly, until the connection ends."""
        while not client.is_closed:
            await asyncio.sleep(_INTERVAL)
            try:
                await self.ensure(client)
            except (nats.errors.Error, TimeoutError) as error:
                _log.warning(
                    "configuration of a consumer not compared", consumer=self.name, error=repr(error)
                )

    def find_differences(self, found: Mapping[str, Any]) -> list[str]:
        """Return the names of the fields that are not as this service wants them."""
        wanted = {**_DEFAULTS, **self._wanted().as_dict()}
        filters = set(found.get("filter_subjects") or filter(None, [found.get("filter_subject")]))
        names = {*wanted, *found} - _IGNORED - {"filter_subjects", "filter_subject"}
        different = {name for name in names if (found.get(name) or None) != (wanted.get(name) or None)}
        if filters != set(self.filter_subjects):
            different.add("filter_subjects")
        return sorted(different)

    async def _read(self, client: Client) -> dict[str, Any] | None:
        """Return the configuration that the broker has, with the fields that the client library does not know."""
        subject = f"$JS.API.CONSUMER.INFO.{self.stream}.{self.name}"
        answer = json.loads((await client.request(subject, timeout=_REQUEST_TIMEOUT)).data)
        if "error" in answer:
            if answer["error"].get("code") == _NOT_FOUND:
                return None
            raise nats.js.errors.APIError.from_error(answer["error"])
        found: dict[str, Any] = answer["config"]
        return found

    async def _create(self, client: Client) -> None:
        await client.jetstream(timeout=_REQUEST_TIMEOUT).add_consumer(self.stream, self._wanted())

    def _wanted(self) -> ConsumerConfig:
        return ConsumerConfig(
            durable_name=self.name,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT,
            max_ack_pending=_MAX_ACK_PENDING,
            # Attempts are counted in the service, so that no event is dead-lettered because the database is away.
            max_deliver=-1,
            filter_subjects=list(self.filter_subjects),
        )
