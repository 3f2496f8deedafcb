"""ListInstances, a page of 100, and GetInstance: at a thousand instances and at very many, one call of each in turn.

Both sizes are populations of their own, with their own servers. Beside them, in the same run on the same rows:
the same SELECT by bare psycopg under the same policies, and a bare gRPC echo of as many bytes.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import psycopg
from google.protobuf import json_format

from bench.population import Template, multiply, name_of
from bench.report import Row
from bench.stack import BenchStack, echo, percentile, running_services
from optaic.instance.v1 import instance_pb2, instance_service_pb2, instance_service_pb2_grpc
from servicekit import pages
from servicekit.signing import Signer

SMALL = 1_000
_PAGE = 100
_NEEDLES = 150  # as many at every size: what is rare among many
_SAMPLES = 1_000
_FILTERED_SAMPLES = 300
_WARM_UP = 20
_FIRST_ID = "00000000-0000-0000-0000-000000000000"
_BARE_PAGE = """
    select name, instance_id, snapshot from instances
    where tenant_id = 'default' and owner_instance_id is null and (name, instance_id) > (%s, %s)
    order by name, instance_id limit 101
"""
_BARE_GET = "select snapshot from instances where tenant_id = 'default' and instance_id = %s"


@dataclass
class _Catalogue:
    """A population of one size, and the ways to it."""

    size: int
    stub: Any
    bare: psycopg.AsyncConnection[Any]
    metadata: Any
    signer: Signer
    projects: dict[str, str] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    async def page(self, filters: Mapping[str, Any], token: str = "") -> Any:
        request = json_format.ParseDict(dict(filters), instance_service_pb2.ListInstancesRequest())
        if request.project_id:
            request.project_id = self.projects[request.project_id]
        request.page_size, request.page_token = _PAGE, token
        return await self.stub.ListInstances(request, metadata=self.metadata)

    def token(self, filters: Mapping[str, Any], position: dict[str, Any]) -> str:
        """Return the page token of any position, sealed as the service seals its own."""
        kinds = sorted(kind.removeprefix("INSTANCE_KIND_").lower() for kind in filters.get("kinds", ()))
        states = sorted(state.removeprefix("INSTANCE_STATE_").lower() for state in filters.get("states", ()))
        project_id = self.projects[filters["projectId"]] if "projectId" in filters else ""
        selection = (project_id, kinds, "", filters.get("labels", {}), states, filters.get("owner", ""), "")
        return pages.PageTokens(self.signer, "default", "ListInstances", *selection).encode(position)

    async def get(self, instance_id: str) -> Any:
        request = instance_service_pb2.GetInstanceRequest(instance_id=instance_id)
        return await self.stub.GetInstance(request, metadata=self.metadata)


_CASES: dict[str, dict[str, Any]] = {
    "deep page": {},
    "project": {"projectId": "large"},
    "kind": {"kinds": ["INSTANCE_KIND_EXPERIMENT"]},
    "two kinds": {"kinds": ["INSTANCE_KIND_DATASET", "INSTANCE_KIND_BACKTEST"]},
    "state": {"states": ["INSTANCE_STATE_PROVISIONING"]},
    "label": {"labels": {"team": "gamma"}},
    "rare project": {"projectId": "small"},
    "rare kind": {"kinds": ["INSTANCE_KIND_PORTFOLIO_OPTIMIZER"]},
    "rare state": {"states": ["INSTANCE_STATE_PAUSED"]},
    "rare label": {"labels": {"team": "delta"}},
    "rare owner": {"owner": "dora"},
    "project, kind, label": {
        "projectId": "large", "kinds": ["INSTANCE_KIND_BACKTEST"], "labels": {"team": "gamma"}
    },
}  # fmt: skip


async def measure(size: int = 1_000_000) -> list[Row]:
    """Latencies at `size` beside those at a thousand; and the limits of the machine."""
    async with (
        _catalogue(SMALL) as small,
        _catalogue(size) as large,
        echo() as bounce,
    ):
        both, rows = (small, large), []
        for name, filters in _CASES.items():
            calls = [_pages(one, filters, is_deep=not name.startswith("rare")) for one in both]
            seconds = await _in_turn(calls, _FILTERED_SAMPLES if filters else _SAMPLES)
            rows += _compared(f"ListInstances, {name}", size, seconds)
        for name, kind in (
            ("ListInstances, first page", lambda one: _pages(one, {})),
            ("ListInstances, by name", _named),
            ("GetInstance", _gets),
        ):
            rows += _compared(name, size, await _in_turn([kind(one) for one in both]))
        answer = await large.page({})
        ways = [
            _pages(large, {}, is_deep=True),
            _bare_pages(large),
            lambda: bounce(answer.SerializeToString()),
        ]
        rows += _limits("ListInstances", await _in_turn(ways))
        message = (await large.get(large.ids[0])).SerializeToString()
        rows += _limits(
            "GetInstance", await _in_turn([_gets(large), _bare_gets(large), lambda: bounce(message)])
        )
        return rows


def _compared(name: str, size: int, seconds: Sequence[Sequence[float]]) -> list[Row]:
    rows = []
    for share in (0.5, 0.99):
        small, large = (percentile(one, share) for one in seconds)
        title = f"{name}: p{share * 100:.0f} at {size:,} (peer: at {SMALL:,})"
        rows.append(Row(title, large, "ms", small, large / small))
    return rows


def _limits(name: str, seconds: Sequence[Sequence[float]]) -> list[Row]:
    own, bare, bounced = (percentile(one, 0.5) for one in seconds)
    return [
        Row(f"{name}: p50 (peer: the same SELECT by bare psycopg)", own, "ms", bare, own / bare),
        Row(f"{name}: p50 (peer: bare gRPC echo of the answer)", own, "ms", bounced, own / bounced),
    ]


async def _in_turn(
    calls: Sequence[Callable[[], Awaitable[Any]]], samples: int = _SAMPLES
) -> list[list[float]]:
    """Make the calls one after the other, again and again: what disturbs one disturbs all."""
    for _ in range(_WARM_UP):
        for call in calls:
            await call()
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(samples):
        for one, call in zip(seconds, calls, strict=True):
            begun = time.perf_counter()
            await call()
            one.append(time.perf_counter() - begun)
    return seconds


def _position() -> str:
    """Return a name among the first half of all: a page is full also among few."""
    return name_of(random.randrange(5_000_000))


def _pages(
    catalogue: _Catalogue, filters: Mapping[str, Any], *, is_deep: bool = False
) -> Callable[[], Awaitable[Any]]:
    async def call() -> Any:
        token = catalogue.token(filters, {"name": _position(), "id": _FIRST_ID}) if is_deep else ""
        answer = await catalogue.page(filters, token)
        assert len(answer.instances) == _PAGE, f"{filters}: a page of {len(answer.instances)}"
        return answer

    return call


def _named(catalogue: _Catalogue) -> Callable[[], Awaitable[Any]]:
    async def call() -> Any:
        name = random.choice(catalogue.names)
        (found,) = (await catalogue.page({"projectId": "large", "name": name})).instances
        assert found.name == name

    return call


def _gets(catalogue: _Catalogue) -> Callable[[], Awaitable[Any]]:
    async def call() -> Any:
        instance_id = random.choice(catalogue.ids)
        assert (await catalogue.get(instance_id)).instance_id == instance_id

    return call


def _bare_pages(catalogue: _Catalogue) -> Callable[[], Awaitable[Any]]:
    async def call() -> Any:
        cursor = await catalogue.bare.execute(_BARE_PAGE, (_position(), _FIRST_ID), prepare=True)
        assert len(await cursor.fetchall()) == _PAGE + 1

    return call


def _bare_gets(catalogue: _Catalogue) -> Callable[[], Awaitable[Any]]:
    async def call() -> Any:
        cursor = await catalogue.bare.execute(_BARE_GET, (random.choice(catalogue.ids),), prepare=True)
        assert await cursor.fetchone()

    return call


@asynccontextmanager
async def _catalogue(size: int) -> AsyncIterator[_Catalogue]:
    async with contextlib.AsyncExitStack() as exits:
        unhurried = {"OPTAIC_ACTIVATION_WAIT_SECONDS": "0"}  # there is no Prefect to wait for
        stack = await exits.enter_async_context(running_services(("instance",), environment=unhurried))
        channel = await exits.enter_async_context(grpc.aio.insecure_channel(stack.endpoints.instance))
        url = stack.databases["instance"]["app"].replace("+psycopg", "")
        bare = await exits.enter_async_context(await psycopg.AsyncConnection.connect(url, autocommit=True))
        await bare.execute("select set_config('optaic.tenant_id', 'default', false)")
        stub: Any = instance_service_pb2_grpc.InstanceServiceStub(channel)
        catalogue = _Catalogue(size, stub, bare, stack.metadata(), await _signer(stack))
        await _populate(stack, catalogue)
        yield catalogue


async def _signer(stack: BenchStack) -> Signer:
    url = stack.databases["instance"]["infra"].replace("+psycopg", "")
    async with await psycopg.AsyncConnection.connect(url) as connection:
        row = await (await connection.execute("select key from signing_key")).fetchone()
    assert row is not None
    return Signer(bytes(row[0]))


async def _populate(stack: BenchStack, catalogue: _Catalogue) -> None:
    """Create one instance of each kind through the API, and the rest by SQL: a twentieth with components."""
    for name in ("large", "small"):
        request = instance_service_pb2.CreateProjectRequest(project=instance_pb2.Project(name=name))
        created = await catalogue.stub.CreateProject(request, metadata=catalogue.metadata)
        catalogue.projects[name] = created.project_id
    prices = await _create(catalogue, "prices", "alpha", **_composed("sp500_prices", as_of="2021-12-31"))
    signal = await _create(
        catalogue, "signal", "beta",
        signal=_composed("expression", expression="close"), upstreamRefs=[_ref("input", prices)],
    )  # fmt: skip
    experiment = await _create(
        catalogue, "momentum", "gamma", experiment={}, definitionName="MOMENTUM",
        config={"x": "close", "long": 252, "short": 21}, upstreamRefs=[_ref("input", prices)],
    )  # fmt: skip
    backtest = await _create(
        catalogue, "backtest", "gamma", backtest={"signals": {"primary": signal}},
        upstreamRefs=[_ref("prices", prices)],
    )  # fmt: skip
    needle = await _create(
        catalogue, "optimizer", "delta", "small", portfolioOptimizer={}, definitionName="minimum_cvar",
        owner="dora", upstreamRefs=[_ref("signal", signal), _ref("covariance", prices)],
    )  # fmt: skip
    pause = instance_service_pb2.PauseInstanceRequest(instance_id=needle)
    await catalogue.stub.PauseInstance(pause, metadata=catalogue.metadata)
    composed, backtests = catalogue.size // 40, catalogue.size * 2 // 5
    templates = [
        Template(prices, composed),
        Template(signal, composed),
        Template(backtest, backtests),
        Template(needle, _NEEDLES),
    ]
    templates.append(Template(experiment, catalogue.size - 5 - sum(one.copies for one in templates)))
    url = stack.endpoints.postgres_admin.rpartition("/")[0]
    await multiply(f"{url}/optaic_instance", templates)
    found = await catalogue.bare.execute(
        "select instance_id::text, name from instances where kind = 'experiment' order by random() limit 5000"
    )
    for instance_id, name in await found.fetchall():
        catalogue.ids.append(instance_id)
        catalogue.names.append(name)
    count = await catalogue.bare.execute("select count(*) from instances where owner_instance_id is null")
    assert await count.fetchone() == (catalogue.size,)


async def _create(catalogue: _Catalogue, name: str, team: str, project: str = "large", **given: Any) -> str:
    values = {
        "projectId": catalogue.projects[project], "name": f"{name_of(0)}.{name}", "labels": {"team": team}
    }  # fmt: skip
    instance = json_format.ParseDict({**values, **given}, instance_pb2.Instance())
    request = instance_service_pb2.CreateInstanceRequest(instance=instance)
    return str((await catalogue.stub.CreateInstance(request, metadata=catalogue.metadata)).instance_id)


def _composed(definition: str, **config: Any) -> dict[str, Any]:
    return {"dataset": {"pipeline": {"definitionName": definition, "config": config}}}


def _ref(role: str, instance_id: str) -> dict[str, str]:
    return {"role": role, "resourceId": instance_id}
