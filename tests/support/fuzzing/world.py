"""What the attackers know: real requests of every method, and the texts of all messages."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message

from support.fuzzing.methods import METHODS, find
from support.fuzzing.processes import SERVICE_TOKEN, Services
from support.identities import caller
from support.polling import eventually

_MOST_SAMPLES = 60  # of one method; the newest are kept
_MOST_TEXTS = 80  # of one name of a field
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_SHORT = 128  # longer texts are no ids or tokens
REPORTS = {
    "StartRun",
    "Heartbeat",
    "CompleteRun",
    "FailRun",
    "ClaimDataRemoval",
    "FinishDataRemoval",
    "ClaimProbes",
    "FinishProbe",
    "WatchDispatches",
    "ReportTelemetry",
    "ListTrainedVersions",
    "ListRunOutputs",
}


def identity_of(role: str, tenant: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a caller with a role; `service` is another service."""
    if role == "service":
        return (("authorization", f"Bearer {SERVICE_TOKEN}"), ("optaic-tenant", tenant))
    return caller(role, tenant)


class World:
    """Calls the services, and keeps the requests and the texts of all messages."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.samples: dict[str, deque[bytes]] = defaultdict(lambda: deque(maxlen=_MOST_SAMPLES))
        self.texts: dict[str, list[str]] = defaultdict(list)
        self.channels = {
            name: grpc.aio.insecure_channel(process.address, options=_OPTIONS)
            for name, process in services.processes.items()
        }
        self.protected: set[bytes] = set()
        self.tenant = "default"

    async def aclose(self) -> None:
        """Close the connections."""
        for channel in self.channels.values():
            await channel.close()

    async def call(
        self,
        name: str,
        given: Mapping[str, Any] | Message,
        role: str = "",
        tenant: str = "",
        process: str = "",
    ) -> Any:
        """Call a method and keep the request; return the answer, of a stream the first."""
        method = find(name, process)
        message = self.keep(name, given, process)
        role = role or ("executor" if name in REPORTS else "admin")
        channel, metadata = self.channels[method.process], identity_of(role, tenant or self.tenant)
        serialize, parse = method.request.SerializeToString, method.response.FromString
        answer: Any
        if method.is_stream:
            stream: Any = channel.unary_stream(method.path, serialize, parse)(
                message, metadata=metadata, timeout=30
            )
            answer = await stream.read()
            stream.cancel()
        else:
            answer = await channel.unary_unary(method.path, serialize, parse)(
                message, metadata=metadata, timeout=30
            )
        self.learn(answer)
        return answer

    def keep(self, name: str, given: Mapping[str, Any] | Message, process: str = "") -> Message:
        """Keep a request as a sample of its method; return it."""
        method = find(name, process)
        message = (
            given if isinstance(given, Message) else json_format.ParseDict(dict(given), method.request())
        )
        self.samples[method.key].append(message.SerializeToString())
        self.learn(message)
        return message

    def learn(self, message: Any) -> None:
        """Remember the short texts of a message by the names of their fields."""
        if not isinstance(message, Message):
            return
        for field, value in message.ListFields():
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                continue
            for item in list(value)[:20] if field.is_repeated else [value]:
                if isinstance(item, Message):
                    self.learn(item)
                elif isinstance(item, str) and item and (len(item) <= _SHORT or field.name.endswith("token")):
                    self._remember(field.name, item)

    def _remember(self, name: str, text: str) -> None:
        known = self.texts[name]
        if text not in known:
            if len(known) >= _MOST_TEXTS:
                del known[0]
            known.append(text)

    async def protect(self) -> None:
        """Remember the definitions without which the next day could not be lived."""
        found = await self.call("ListDefinitions", {"pageSize": 1000})
        for each in found.definitions:
            if not each.name.startswith(("M_", "R_")):
                self.protected |= {each.name.encode(), each.newest_version.definition_version_id.encode()}
        self.protected -= {b""}

    async def snapshot(self, tenant: str) -> list[bytes]:
        """Return what a tenant has, as bytes; of its runs, which end by themselves, the ids."""
        self.tenant = tenant
        lists = [await self.call(name, {"pageSize": 1000}) for name in ("ListProjects", "ListInstances")]
        runs = await self.call("ListRuns", {"pageSize": 1000})
        ids = sorted(run.run_id.encode() for run in runs.runs)
        return [*(each.SerializeToString(deterministic=True) for each in lists), *ids]

    def methods_without_sample(self) -> list[str]:
        """Return the methods of ours of which no request was kept."""
        return [key for key, method in METHODS.items() if method.is_ours and key not in self.samples]

    async def rest(self) -> None:
        """Wait until no service has a call or a transaction under way."""
        await asyncio.sleep(0)  # calls that were cancelled leave first
        await eventually(self._is_at_rest, 60, "a call, a stream or a transaction is left")

    async def _is_at_rest(self) -> bool:
        facts = await self.services.facts()
        left = any(each.streams for each in facts.values())
        return not left and not await self.services.open_transactions()
