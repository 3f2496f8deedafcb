"""lineage-service for tests: its use cases on a real database, and the whole service behind a real channel."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import sqlalchemy as sa
from google.protobuf.message import Message
from nats.aio.client import Client

from lineage_service import conversion
from lineage_service.app import build
from lineage_service.calendars_adapter import ExchangeCalendars
from lineage_service.config import Settings
from lineage_service.consumers import INSTANCE_CONSUMER
from lineage_service.domain.causes import Explanation
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.probes import ProbeFact
from lineage_service.domain.runs import Input, RunFact
from lineage_service.domain.snapshots import Snapshot
from lineage_service.store import plans
from lineage_service.use_cases import (
    acceptance,
    admission,
    impact,
    invalidation,
    judging,
    reading,
    recomputation,
)
from lineage_service.use_cases.admission import RUN_CONSUMER
from lineage_service.use_cases.dependencies import Dependencies
from lineage_service.use_cases.facts import apply_probes, apply_run_facts, apply_snapshots
from lineage_service.use_cases.views import Present, State, View, open_past
from optaic.lineage.v1.lineage_events_pb2 import FlowStatusesChanged
from optaic.lineage.v1.lineage_service_pb2 import (
    AcceptStalenessRequest,
    AsOf,
    InvalidateFlowRequest,
    PreviewImpactRequest,
    RevokeAcceptedStalenessRequest,
)
from optaic.lineage.v1.lineage_service_pb2_grpc import LineageServiceStub
from optaic.rules.events import INSTANCE_EVENTS, RUN_EVENTS
from servicekit.app import App, serve
from servicekit.clock import Clock, SystemClock
from servicekit.consumer import insert_consumed
from servicekit.context import RequestContext
from servicekit.database import Connection, Database
from servicekit.errors import FailedPreconditionError
from servicekit.events import Event, headers_of, make_event
from servicekit.ids import new_id
from servicekit.signing import Signer
from servicekit.tokens import ReadTokens
from support.broker import connected, ensure_streams
from support.identities import tokens_file
from support.lineage_model import ModelFlow
from support.polling import eventually
from support.postgres import service_database

SERVICE_TOKEN = "service-secret"
_tenants = itertools.count()


def new_tenant() -> str:
    """Return a new tenant."""
    return f"tenant-{next(_tenants)}"


@dataclass
class FlowSummary:
    """What a test compares of a flow."""

    word: str
    is_fresh: bool
    version: int
    version_id: str
    run_number: int
    consumed: dict[tuple[FlowKey, str], int]


def summaries(flows: dict[FlowKey, ModelFlow]) -> dict[FlowKey, FlowSummary]:
    """Return the flows of the model in the form that is compared with the service."""
    return {
        key: FlowSummary(
            flow.word,
            flow.is_fresh,
            flow.version,
            flow.version_id,
            flow.run_number,
            {edge: flow.consumed.get(edge, 0) for edge in flow.edges},
        )
        for key, flow in flows.items()
        if flow.spec is not None
    }


class Lineage:
    """The use cases of one tenant, each in a transaction of its own, as the consumers would run them."""

    def __init__(self, database: Database, tenant_id: str, clock: Clock | None = None) -> None:
        self.database = database
        self.tenant_id = tenant_id
        self.deps = Dependencies(
            database, clock or SystemClock(), new_id, Signer(bytes(32)), ExchangeCalendars()
        )

    async def apply(self, items: Sequence[Snapshot | RunFact]) -> None:
        """Apply events: those of each kind in one batch, in their order; repeated ids are dropped."""
        snapshots = [item for item in items if isinstance(item, Snapshot)]
        facts = [item for item in items if isinstance(item, RunFact)]
        if snapshots:
            async with self.database.transaction(self.tenant_id) as connection:
                await apply_snapshots(self.deps, connection, self.tenant_id, snapshots)
        if facts:
            async with self.database.transaction(self.tenant_id) as connection:
                ids = [fact.event_id for fact in facts]
                new = await insert_consumed(connection, self.tenant_id, RUN_CONSUMER, ids)
                news = [
                    fact for fact in {fact.event_id: fact for fact in facts}.values() if fact.event_id in new
                ]
                if news:
                    await apply_run_facts(self.deps, connection, self.tenant_id, news)

    async def judge(self) -> None:
        """Judge the freshness policies that are due."""
        statement = sa.text("select flow_id from freshness_policies where tenant_id = :tenant_id")
        async with self.database.read(self.tenant_id) as connection:
            flow_ids = list((await connection.execute(statement, {"tenant_id": self.tenant_id})).scalars())
        await judging.judge(self.deps, self.tenant_id, flow_ids)

    async def recompute(self) -> list[FlowKey]:
        """Compare what is stored of all flows with the facts; return the flows that were wrong."""
        repaired: list[FlowKey] = []
        last = 0
        while True:
            part = await recomputation.recompute_part(self.deps, self.tenant_id, last)
            repaired += part.repaired
            last = part.last
            if not last:
                return repaired

    async def check(self, key: FlowKey) -> admission.Answer:
        """Ask for admission."""
        questions = [admission.Question(key)]
        (answer,) = [each async for each in admission.answer_questions(self.deps, self.tenant_id, questions)]
        return answer

    async def explain(self, key: FlowKey) -> tuple[State, list[Explanation]]:
        """Return the state of a flow, and the explanations of its staleness."""
        async with self.database.read(self.tenant_id) as connection:
            state, explanations = await reading.load_explanations(connection, self.tenant_id, key)
            return state, list(explanations)

    async def invalidate(self, key: FlowKey) -> None:
        """Declare a flow invalid."""
        request = InvalidateFlowRequest(flow=conversion.flow_ref(*key), reason="wrong data")
        await invalidation.invalidate_flow(self.deps, RequestContext(self.tenant_id, "ada", "1", ""), request)

    async def probe(self, facts: Sequence[ProbeFact]) -> None:
        """Apply what probes have found."""
        async with self.database.transaction(self.tenant_id) as connection:
            await apply_probes(self.deps, connection, self.tenant_id, facts)

    async def declare(self, what: str, key: FlowKey) -> str:
        """Accept the staleness of a flow, or revoke that; return the reason of the refusal, if there is one."""
        context, flow = RequestContext(self.tenant_id, "ada", "1", ""), conversion.flow_ref(*key)
        try:
            if what == "accept":
                request = AcceptStalenessRequest(flow=flow, reason="only a comment changed")
                state = await acceptance.accept_staleness(self.deps, context, request)
                assert state.accepted_staleness.reason == request.reason
            else:
                revoke = RevokeAcceptedStalenessRequest(flow=flow, reason="it was more")
                state = await acceptance.revoke_accepted_staleness(self.deps, context, revoke)
                assert not state.HasField("accepted_staleness")
        except FailedPreconditionError as refusal:
            return refusal.reason
        return ""

    async def preview_impact(self, key: FlowKey) -> dict[FlowKey, int]:
        """Return what would become stale with a flow, each with its distance; from pages of two."""
        found: dict[FlowKey, int] = {}
        request = PreviewImpactRequest(flows=[conversion.flow_ref(*key)], page_size=2)
        while True:
            answer = await impact.preview_impact(
                self.deps, RequestContext(self.tenant_id, "ada", "1", ""), request
            )
            for each in answer.flows:
                assert conversion.flow_key(each.flow) not in found
                assert each.distance >= max(found.values(), default=0)
                found[conversion.flow_key(each.flow)] = each.distance
            request.page_token = answer.next_page_token
            if not request.page_token:
                assert answer.total == len(found) == sum(each.count for each in answer.counts)
                return found

    async def state(self) -> dict[FlowKey, FlowSummary]:
        """Return all defined flows."""
        async with self.database.read(self.tenant_id) as connection:
            summaries, _ = await self._summarize(connection, Present(connection, self.tenant_id))
        return summaries

    async def state_as_of(self, as_of: AsOf) -> tuple[dict[FlowKey, FlowSummary], dict[FlowKey, State]]:
        """Return all flows that were defined at an earlier moment, and what GetFlowState answers of each."""
        async with self.database.read(self.tenant_id) as connection:
            return await self._summarize(
                connection, await open_past(connection, self.tenant_id, as_of, "as_of")
            )

    async def _summarize(
        self, connection: Connection, view: View
    ) -> tuple[dict[FlowKey, FlowSummary], dict[FlowKey, State]]:
        statement = sa.text("select flow_id from flows where tenant_id = :tenant_id")
        ids = list((await connection.execute(statement, {"tenant_id": self.tenant_id})).scalars())
        states = {state.flow.flow_id: state for state in await view.list_states(ids)}
        summaries = {
            flow.key: FlowSummary(
                flow.word.value, flow.is_fresh, flow.version, flow.version_id, flow.run_number, {}
            )
            for flow in [state.flow for state in states.values()]
            if flow.is_defined
        }
        for edge in await view.list_edges_among(ids):
            downstream = states[edge.downstream_id].flow
            if downstream.is_defined and edge.is_connected:
                key = (states[edge.upstream_id].flow.key, edge.role)
                summaries[downstream.key].consumed[key] = edge.consumed_version
        return summaries, {state.flow.key: state for state in states.values() if state.flow.is_defined}

    async def revision(self) -> int:
        """Return the newest revision."""
        async with self.database.read(self.tenant_id) as connection:
            return await plans.get_revision(connection, self.tenant_id)

    async def messages(self, after: int = 0) -> list[FlowStatusesChanged]:
        """Return the FlowStatusesChanged that wait in the outbox, in order, from a lineage revision on."""
        statement = sa.text(
            "select payload from outbox where tenant_id = :tenant_id and type = :type order by id"
        )
        kind = FlowStatusesChanged.DESCRIPTOR.full_name
        async with self.database.read(self.tenant_id) as connection:
            rows = await connection.execute(statement, {"tenant_id": self.tenant_id, "type": kind})
            messages = [FlowStatusesChanged.FromString(row[0]) for row in rows]
        return [message for message in messages if message.revision > after]

    async def states(self) -> dict[FlowKey, State]:
        """Return what GetFlowState answers of all defined flows, computed afresh."""
        statement = sa.text("select flow_id from flows where tenant_id = :tenant_id and is_defined")
        async with self.database.read(self.tenant_id) as connection:
            ids = (await connection.execute(statement, {"tenant_id": self.tenant_id})).scalars()
            states = await Present(connection, self.tenant_id).list_states(list(ids))
        return {state.flow.key: state for state in states}


def pins_of(answer: admission.Answer) -> list[Input]:
    """Return what a run admitted now reads."""
    return [
        Input(flow.key, change.role, flow.version_id)
        for flow, changes in answer.admission.direct
        for change in changes
    ]


@contextlib.asynccontextmanager
async def lineage_database() -> AsyncIterator[Database]:
    """Yield a fresh database; tenants keep cases apart. The session's PostgreSQL must be running."""
    async with service_database("lineage", "lineage_service") as urls:
        database = Database(Settings.model_validate(urls))
        try:
            yield database
        finally:
            await database.close()


@dataclass
class RunningLineageService:
    """A started service with a real channel to it and a real broker beside it."""

    app: App[Dependencies]
    stub: LineageServiceStub
    nats: Client
    tenant_id: str = "default"

    async def publish(self, service: str, message: Message, participle: str, resource_id: str) -> Event:
        """Put an event into its stream, as the owning service's relay does."""
        event = make_event(service, self.tenant_id, message, participle, resource_id, SystemClock(), new_id)
        await self.resend(event)
        return event

    async def resend(self, event: Event) -> None:
        """Put the same event into its stream again; the broker's own deduplication is evaded."""
        headers = {**headers_of(event), "Nats-Msg-Id": new_id()}
        await self.nats.jetstream(timeout=5).publish(event.subject, event.payload, headers=headers)

    async def applied(self, *published: Event) -> None:
        """Wait until the service has applied these events."""
        rules = {"instance": (INSTANCE_CONSUMER,), "run": (RUN_CONSUMER,)}
        tokens = ReadTokens(self.app.deps.database, rules)
        await tokens.wait(self.tenant_id, [event.token for event in published], None)


@contextlib.asynccontextmanager
async def lineage_service(nats_url: str, **settings: Any) -> AsyncIterator[RunningLineageService]:
    """Run the service on a fresh database. The session's PostgreSQL must be running."""
    async with connected(nats_url) as client, service_database("lineage", "lineage_service") as urls:
        await ensure_streams(client, INSTANCE_EVENTS, RUN_EVENTS)
        values = {
            "nats_url": nats_url,
            "service_token": SERVICE_TOKEN,
            "tokens_file": tokens_file(),
            "shutdown_grace_seconds": 0.5,
        }
        app = await build(Settings.model_validate({**values, **urls, **settings}))
        stop = asyncio.Event()
        serving = asyncio.create_task(serve(stop, app))
        try:
            await eventually(lambda: app.server.address or serving.done())
            assert app.server.address, serving.exception()
            async with grpc.aio.insecure_channel(app.server.address) as channel:
                yield RunningLineageService(app, LineageServiceStub(channel), client)
        finally:
            stop.set()
            await serving
