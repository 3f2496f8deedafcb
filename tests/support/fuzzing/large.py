"""Large resources as the contracts allow them, and requests that ask for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from support.fuzzing.world import World
from support.postgres import admin_url

_VALUES = 46_000  # of one configuration, as many as an instance may have
_NAMES = 10_000  # of a universe
_UPSTREAMS = 256
_AT_ONCE = 16
_DEPENDANTS, _WIDTH = 20_000, 5  # flows below a flow, and how many of the others each reads as well
_ADD_FLOWS = """
    insert into flows (tenant_id, instance_id, flow_kind, is_defined, version, version_run_number, run_number,
        last_run_id, last_run_time, ended_run_number, outcome_run_number, outcome, completed_run_number, is_fresh)
    select 'default', gen_random_uuid(), 'refresh', true, 1, 1, 1, gen_random_uuid(), now(), 1, 1, 'succeeded', 1, true
    from generate_series(1, %s) returning flow_id
"""
_ADD_INSTANCES = """
    insert into instances (tenant_id, instance_id, revision, name, kind, is_deleted)
    select tenant_id, instance_id, 1, 'below ' || flow_id, 1, false from flows where flow_id = any(%s)
"""
_ADD_EDGES = """
    with numbered as (select flow_id, row_number() over (order by flow_id) as n from unnest(%s::bigint[]) as f(flow_id))
    insert into edges (tenant_id, downstream_id, upstream_id, role, kind, is_connected, consumed_version)
    select 'default', d.flow_id, coalesce(u.flow_id, o.flow_id), 'input_' || k, 1, true, 1
    from numbered d cross join generate_series(0, %s) k
    left join numbered u on u.n = d.n - k and k > 0
    join flows o on o.instance_id = %s::uuid and o.flow_kind = 'refresh'
"""
_ANYTHING = {"type": "object", "additionalProperties": True}
_SECRET_URL = "postgres://reader:${OPTAIC_SECRET_WAREHOUSE}@warehouse/prices"


def _largest_schema() -> dict[str, Any]:
    """Return a schema with about as many values as a schema may have."""
    members = {f"member_{number:04d}": {"type": "number", "minimum": 0} for number in range(1_200)}
    return {"type": "object", "properties": members, "additionalProperties": False}


@dataclass(frozen=True)
class Large:
    """The ids of large resources."""

    project: str
    wide: str  # a configuration of many values
    urls: str  # the same, with a URL that is hidden wherever it is shown
    universe: str
    schema: str  # its definition has the largest schema
    merged: str  # it reads as many upstreams as it may
    sources: list[str]
    definition: str

    @property
    def all(self) -> list[str]:
        """Return the ids of the instances, but not of the many."""
        return [self.wide, self.urls, self.universe, self.schema, self.merged]


async def make(world: World, tag: str) -> Large:
    """Create the resources."""
    world.tenant = "default"
    project = (await world.call("CreateProject", {"project": {"name": f"large_{tag}"}})).project_id
    await _publish(world, f"wide_{tag}", _ANYTHING)
    schema = await _publish(world, f"schema_{tag}", _largest_schema())
    values: dict[str, Any] = {"wide": list(range(_VALUES))}
    wide = await _create(world, _dataset(project, "wide", f"wide_{tag}", values))
    urls = await _create(world, _dataset(project, "urls", f"wide_{tag}", {**values, "url": _SECRET_URL}))
    config = {f"member_{number:04d}": number for number in range(1_200)}
    narrow = await _create(world, _dataset(project, "schema", f"schema_{tag}", config))
    sources: list[str] = []
    numbers = iter(range(_UPSTREAMS))

    async def create_sources() -> None:
        for number in numbers:
            pipeline = {"definitionName": "sp500_prices", "config": {"as_of": "2021-12-31"}}
            given = {"projectId": project, "name": f"source_{number}", "dataset": {"pipeline": pipeline}}
            sources.append(await _create(world, given))

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(create_sources())
    merged = await _create(world, _merged(project, "merged", sources))
    universe = await _create(world, _backtest(project, "universe", merged, sources[0]))
    return Large(project, wide, urls, universe, narrow, merged, sources, schema)


async def add_dependants(world: World, origin: str) -> None:
    """Write many dependants of an instance into the database of lineage-service."""
    database = world.services.databases["lineage"]
    async with await psycopg.AsyncConnection.connect(admin_url(database), autocommit=True) as connection:
        rows = await (await connection.execute(_ADD_FLOWS, [_DEPENDANTS])).fetchall()
        ids = [row[0] for row in rows]
        await connection.execute(_ADD_INSTANCES, [ids])
        await connection.execute(_ADD_EDGES, [ids, _WIDTH, origin])
        await connection.execute("analyze")


def graph_requests(origin: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield requests that read the largest graph around a flow."""
    flow = {"instanceId": origin, "flowKind": "FLOW_KIND_REFRESH"}
    yield "GetLineageGraph", {"flow": flow, "upstreamDepth": 100, "downstreamDepth": 100}
    yield "GetLineageGraph", {"flow": flow}
    yield "ListDownstreams", {"flow": flow, "pageSize": 1_000}
    yield "ExplainStaleness", {"flow": flow}
    yield "PreviewImpact", {"flows": [flow], "pageSize": 1_000}
    yield "InvalidateFlow", {"flow": flow, "reason": "r"}
    yield "GetFlowState", {"flow": flow}
    yield "ListDownstreams", {"flow": flow, "pageSize": 1_000}
    yield "GetLineageGraph", {"flow": flow, "downstreamDepth": 100}
    yield "PreviewDeletion", {"deleteInstance": {"instanceId": origin, "cascade": True}, "pageSize": 1_000}


async def _publish(world: World, name: str, schema: Mapping[str, Any]) -> str:
    version = {"version": "1.0.0", "codeRef": "nowhere:Nothing", "parametersSchema": schema}
    given = {"name": name, "kind": "DEFINITION_KIND_PIPELINE", "definitionVersion": version}
    return str((await world.call("PublishDefinition", given)).definition_id)


async def _create(world: World, given: Mapping[str, Any]) -> str:
    return str((await world.call("CreateInstance", {"instance": given})).instance_id)


def _dataset(project: str, name: str, definition: str, config: Mapping[str, Any]) -> dict[str, Any]:
    pipeline = {"definitionName": definition, "config": config}
    return {"projectId": project, "name": name, "dataset": {"pipeline": pipeline}}


def _merged(project: str, name: str, sources: list[str]) -> dict[str, Any]:
    pipeline = {"definitionName": "expression", "config": {"expression": "source_0.close"}}
    refs = [{"resourceId": each, "role": "input"} for each in sources]
    dataset = {"pipeline": pipeline}
    return {"projectId": project, "name": name, "signal": {"dataset": dataset}, "upstreamRefs": refs}


def _backtest(project: str, name: str, signal: str, prices: str) -> dict[str, Any]:
    universe = [prices, *(f"entity_with_a_long_common_prefix_{number:06d}" for number in range(_NAMES - 1))]
    spec = {"assets": {"universe": universe}, "signals": {"primary": signal}}
    dates = {"start": "2020-01-01", "end": "2021-01-01"}
    return {"projectId": project, "name": name, "backtest": {**spec, "dateRange": dates}}


def requests(large: Large, instances: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield requests, by the name of their method, that make a service read or write large resources, and these instances."""
    page = {"pageSize": 1_000}
    yield "ListInstances", {**page, "projectId": large.project}
    yield "ListProjects", page
    yield "ListDefinitions", page
    yield "ListDefinitionVersions", {**page, "definitionId": large.definition}
    yield "BatchGetInstances", {"instanceIds": [*large.all, *large.sources]}
    yield "BatchGetInstanceStatuses", {"instanceIds": [*large.all, *large.sources]}
    yield "ListInstanceStatuses", {**page, "projectId": large.project}
    yield "PreviewDeletion", {"deleteProject": {"projectId": large.project, "cascade": True}, **page}
    for one in instances:
        for change in ("description", "labels"):
            value = "changed" if change == "description" else {"changed": "yes"}
            update = {"instance": {"instanceId": one, change: value}, "updateMask": change}
            yield "UpdateInstance", {**update, "validateOnly": True}  # so that each try makes it again
            yield "UpdateInstance", update
            yield "RehearseChanges", {"changes": [{"updateInstance": update}] * 2}
        yield "GetInstance", {"instanceId": one}
        yield "ListInstanceRevisions", {**page, "instanceId": one}
        yield "DiffInstanceRevisions", {"instanceId": one, "fromRevision": 1}
        yield "PauseInstance", {"instanceId": one, "reason": "r"}
        yield "ResumeInstance", {"instanceId": one}
        flow = {"instanceId": one, "flowKind": _kind(large, one)}
        yield "SubmitRun", {"instanceId": one, "force": True, "forceReason": "r"}
        yield "ListRuns", {**page, "instanceId": one}
        yield "CheckUpstreamFreshness", {"flow": flow}
        yield "GetLineageGraph", {"flow": flow, "upstreamDepth": 10, "downstreamDepth": 10}
        yield "ExplainStaleness", {"flow": flow}
        for name in ("ListUpstreams", "ListDownstreams"):
            yield name, {**page, "flow": flow}
    flows = [{"instanceId": each, "flowKind": "FLOW_KIND_REFRESH"} for each in large.sources]
    yield "GetExecutionOrder", {"flows": flows}
    yield "DeleteInstance", {"instanceId": large.sources[0], "cascade": True}


def _kind(large: Large, one: str) -> str:
    return "FLOW_KIND_BACKTEST" if one == large.universe else "FLOW_KIND_REFRESH"
