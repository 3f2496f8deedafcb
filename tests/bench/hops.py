"""Where the time between CompleteRun and a watcher goes, hop by hop: read from the events and the inboxes, not from the services."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import nats
import psycopg
from nats.aio.msg import Msg

from bench.report import Row
from bench.stack import BenchStack, percentile
from optaic.lineage.v1.lineage_events_pb2 import FlowStatusesChanged
from optaic.run.v1.run_events_pb2 import RunCompleted
from optaic.status.v1.status_events_pb2 import InstanceStatusesChanged
from servicekit.events import event_of

_MOMENTS = (
    "CompleteRun called",
    "RunCompleted made",
    "published",
    "lineage-service begins",
    "FlowStatusesChanged made",
    "published",
    "status-service begins",
    "status made",
    "READY seen by a watcher",
)
_BEGUN = """
    select event_id::text, extract(epoch from min(consumed_time))::float8 from consumed_events
    where consumer = %s group by event_id
"""


@dataclass
class Hops:
    """The events of a measurement; times are those of the machine's clock, which all processes share."""

    made: dict[str, float] = field(default_factory=dict)  # by event id
    published: dict[str, float] = field(default_factory=dict)
    completions: dict[str, str] = field(default_factory=dict)  # event id by run id
    caused: dict[str, str] = field(default_factory=dict)  # the id of the event that followed from an event

    async def note(self, message: Msg) -> None:
        """Note an event that is being published."""
        now = time.time()
        event = event_of(message.subject, message.headers or {}, message.data)
        self.made[event.event_id], self.published[event.event_id] = event.time.timestamp(), now
        if event.type == RunCompleted.DESCRIPTOR.full_name:
            run = RunCompleted.FromString(event.payload).run
            self.completions[run.run_id] = event.event_id
        for kind in (FlowStatusesChanged, InstanceStatusesChanged):
            if event.type == kind.DESCRIPTOR.full_name:
                causes = kind.FromString(event.payload).caused_by_event_ids
                self.caused.update(dict.fromkeys(causes, event.event_id))

    async def rows(self, stack: BenchStack, runs: Mapping[str, tuple[float, float]]) -> list[Row]:
        """Return the median of each hop; `runs` has the times of the call and of the status, by run id."""
        lineage = await _begun(stack, "lineage", "lineage-run-events")
        status = await _begun(stack, "status", "status-lineage-events")
        traces: list[list[float]] = []
        for run_id, (called, seen) in runs.items():
            completed = self.completions[run_id]
            changed = self.caused[completed]
            traces.append(
                [
                    called,
                    self.made[completed],
                    self.published[completed],
                    lineage[completed],
                    self.made[changed],
                    self.published[changed],
                    status[changed],
                    self.made[self.caused[changed]],
                    seen,
                ]
            )
        return [
            Row(
                f"hop: {before} -> {after}, p50",
                percentile([trace[number + 1] - trace[number] for trace in traces], 0.5),
                "ms",
            )
            for number, (before, after) in enumerate(pairwise(_MOMENTS))
        ]


@asynccontextmanager
async def noting(stack: BenchStack) -> AsyncIterator[Hops]:
    """Note every event of the tenant while the block runs."""
    hops = Hops()
    client = await nats.connect(stack.endpoints.nats_subscriber)
    try:
        await client.subscribe("optaic.default.>", cb=hops.note)
        await client.flush()
        yield hops
    finally:
        await client.close()


async def _begun(stack: BenchStack, service: str, consumer: str) -> dict[str, float]:
    """Return when the transaction began that applied each event."""
    url = f"{stack.endpoints.postgres_admin.rsplit('/', 1)[0]}/optaic_{service}"
    async with await psycopg.AsyncConnection.connect(url) as connection:
        found = await connection.execute(_BEGUN, [consumer])
        return dict(await found.fetchall())
