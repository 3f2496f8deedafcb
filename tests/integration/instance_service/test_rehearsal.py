"""What would come of a whole file, by the service's own rules: all at once, and nothing is left of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from instance_service.use_cases import rehearsal
from optaic.apply.documents import read_documents
from optaic.apply.execution import Done, execute, read_existing
from optaic.apply.plan import make_plan
from optaic.client import AsyncClient
from optaic.errors import ConflictError, OptaicError
from optaic.instance.v1.instance_pb2 import Instance, Project
from optaic.instance.v1.instance_service_pb2 import (
    Change,
    ChangeVerdict,
    CreateProjectRequest,
    RehearseChangesRequest,
)
from servicekit.database import lock_tenant
from servicekit.ids import new_id
from support.broker import listen
from support.identities import caller
from support.instance_service import RunningInstanceService, refusal
from support.polling import eventually

_PRICES = {"dataset": {"pipeline": {"definition_name": "sp500_prices", "config": {"as_of": "2021-12-31"}}}}
_TABLES = (
    "definitions",
    "definition_versions",
    "outbox",
    "projects",
    "instances",
    "instance_revisions",
    "flows",
)


def _derived(name: str, upstream: str, expression: str = "close", **more: Any) -> dict[str, Any]:
    pipeline = {"definition_name": "expression", "config": {"expression": expression}}
    return {"name": name, "dataset": {"pipeline": pipeline}, "upstreams": {"input": upstream}, **more}


def _mine(**schema: Any) -> dict[str, Any]:
    content = {
        "version": "1.0.0",
        "code_ref": "mine.pipelines:Mine",
        "parameters_schema": {"type": "object", **schema},
        "flow_specs": [{"flow_kind": "refresh", "is_default": True}],
    }
    return {"name": "mine", "kind": "pipeline", "definition_version": content}


def _file(*instances: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"project": "desk", "manager": "m", "instances": list(instances), **more}


@pytest.fixture
async def client(service: RunningInstanceService) -> AsyncIterator[AsyncClient]:
    """A client of the service."""
    async with AsyncClient.connect(instance_address=service.app.server.address, token="development") as made:
        yield made


async def _counts(service: RunningInstanceService) -> dict[str, int]:
    """Return how many rows there are, once what the start has published is gone."""

    async def is_published() -> bool:
        return (await service.row_counts("outbox"))["outbox"] == 0

    await eventually(is_published)
    return await service.row_counts(*_TABLES)


async def _apply(client: AsyncClient, file: dict[str, Any], *, dry_run: bool = False) -> list[Done]:
    existing = await read_existing(client)
    actions = make_plan(read_documents([file]), existing)
    return [each async for each in execute(client, actions, existing, dry_run=dry_run)]


async def _refused(client: AsyncClient, file: dict[str, Any], *, dry_run: bool = True) -> dict[str, str]:
    with pytest.raises(OptaicError) as caught:
        await _apply(client, file, dry_run=dry_run)
    return {each.field.removeprefix("documents[0]."): each.description for each in caught.value.violations}


async def test_all_errors_in_a_new_project_are_listed_at_once_and_nothing_is_created(
    service: RunningInstanceService, client: AsyncClient
) -> None:
    wrong = _file(
        {"name": "prices", "dataset": {"pipeline": {"definition_name": "sp500_prices", "config": {"as_of": 3}}}},
        _derived("half", "prices", "close / "),
        _derived("next", "half", schedule={"cron": {"expression": "0 0 30 2 *"}}),
        _derived("good", "next"),
        {"name": "own", "dataset": {"pipeline": {"definition_name": "mine", "config": {"m": 1, "n": "x"}}}},
        {"name": "sig", "signal": {"dataset": {"pipeline": {"definition_name": "mine"}}}, "upstreams": {"odd role": "own"}},
        {"name": "bt", "backtest": {"signals": {"primary": "own"}, "date_range": {"start": "2024-02-30"}}},
        definitions=[_mine(properties={"n": {"type": "integer"}}, additionalProperties=False)],
    )  # fmt: skip
    before = await _counts(service)
    for dry_run in (True, False):
        found = await _refused(client, wrong, dry_run=dry_run)
        assert set(found) >= {
            "instances[0].dataset.pipeline.config.as_of",
            "instances[1].dataset.pipeline.config.expression",
            "instances[2].schedule.cron.expression",
            "instances[4].dataset.pipeline.config.m",
            "instances[4].dataset.pipeline.config.n",
            "instances[6].backtest.date_range.start",
        }
        assert not any(field.startswith("instances[3]") for field in found)
        assert not any(new in " ".join(found.values()) for new in ("NoneType", "object at"))
    assert await service.row_counts(*_TABLES) == before


async def test_a_cycle_an_unknown_version_and_names_twice_are_found(client: AsyncClient) -> None:
    cycle = _file(_derived("a", "b"), _derived("b", "a"))
    assert await _refused(client, cycle) != {}
    pinned = {"definition_name": "sp500_prices", "definition_version": "9.9.9"}
    unknown = _file(
        {"name": "a", "dataset": {"pipeline": pinned}}, _derived("b", "a"), {"name": "c", **_PRICES}
    )
    with pytest.raises(OptaicError) as caught:
        await _apply(client, unknown, dry_run=True)
    # What reads it is not blamed for that.
    assert "instance a (documents[0].instances[0])" in caught.value.message
    assert "instance b" not in str(caught.value)


async def test_after_a_clean_dry_run_everything_is_made(
    service: RunningInstanceService, client: AsyncClient
) -> None:
    macro = {"parameters": ["x"], "expression": "x / 2"}
    file = _file(
        _derived("quarter", "half", "HALVED(HALVED(close))"),
        _derived("half", "prices", "HALVED(close)"),
        {"name": "prices", **_PRICES},
        {"name": "sig", "signal": _derived("", "")["dataset"] and {"dataset": _derived("", "")["dataset"]},
         "upstreams": {"input": "half"}},
        {"name": "bt", "backtest": {"signals": {"primary": "sig"}, "assets": {"universe": ["prices", "AAPL"]}}},
        {"name": "own", "dataset": {"pipeline": {"definition_name": "mine", "config": {"n": 1}}}},
        definitions=[
            {"name": "HALVED", "kind": "op_macro", "definition_version": {"version": "1.0.0", "op_macro": macro,
             "parameters_schema": {"type": "object", "properties": {"x": {"type": ["string", "number"],
             "format": "optaic-expression"}}, "required": ["x"], "additionalProperties": False}}},
            {**_mine(properties={"n": {"type": "integer"}}), "state": "deprecated"},
        ],
    )  # fmt: skip
    before = await _counts(service)
    subscription = await listen(service.nats, "optaic.>")
    foreseen = await _apply(client, file, dry_run=True)
    assert all(each.is_checked for each in foreseen)
    assert await service.row_counts(*_TABLES) == before
    assert subscription.pending_msgs == 0
    done = await _apply(client, file)
    assert [each.action.name for each in done] == [each.action.name for each in foreseen]
    assert await _apply(client, file, dry_run=True) == []


async def test_each_change_is_checked_against_the_state_after_the_earlier_ones(client: AsyncClient) -> None:
    await _apply(
        client, _file({"name": "prices", **_PRICES}, _derived("half", "prices"), _derived("more", "half"))
    )

    async def pruned(*instances: dict[str, Any]) -> list[str]:
        existing = await read_existing(client)
        actions = make_plan(read_documents([_file(*instances)]), existing, prune=True)
        found = [each async for each in execute(client, actions, existing, dry_run=True)]
        return [f"{each.action.verb} {each.action.name}" for each in found]

    # `more` reads `prices` by then, so `half` may go.
    assert await pruned({"name": "prices", **_PRICES}, _derived("more", "prices")) == [
        "change more",
        "delete half",
    ]
    assert await pruned() == ["delete more", "delete half", "delete prices"]
    assert len(await client.instances.list()) == 3


async def test_a_dry_run_says_which_existing_flows_get_another_fingerprint(
    service: RunningInstanceService, client: AsyncClient
) -> None:
    del service
    file = _file({"name": "prices", **_PRICES}, _derived("next", "prices"))
    await _apply(client, file)
    file["instances"][0]["description"] = "Only words."
    file["instances"][1] = _derived("next", "prices", "close * 2")
    file["instances"].append(_derived("new", "next"))
    found = {each.action.name: each.moved_flows for each in await _apply(client, file, dry_run=True)}
    following = await client.instances.get_by_name("next")
    assert {name for name, moved in found.items() if moved} == {"next"}
    assert [flow.instance_id for flow in found["next"]] == [following.instance_id]
    changed = await client.instances.update(
        following, {"dataset": {"pipeline": {"config": {"expression": "close * 2"}}}}, validate_only=True
    )
    assert changed.flows[0].compute_fingerprint != following.flows[0].compute_fingerprint


async def test_a_change_of_something_else_is_not_overwritten(client: AsyncClient) -> None:
    await _apply(client, _file({"name": "prices", **_PRICES}))
    existing = await read_existing(client)
    actions = make_plan(read_documents([_file({"name": "prices", **_PRICES, "owner": "a"})]), existing)
    await client.instances.update(existing.instances[0], owner="b")
    with pytest.raises(ConflictError):
        [each async for each in execute(client, actions, existing, dry_run=True)]


async def test_tenants_do_not_meet_in_a_rehearsal(service: RunningInstanceService) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    reader = Instance(name="x", project_id=new_id())
    reader.dataset.pipeline.definition_name = "sp500_prices"
    reader.upstream_refs.add(resource_id=prices.instance_id, role="input")
    changes = [Change(assumed_id=reader.project_id), Change(), Change()]
    changes[0].create_project.project.name = "research"  # the same name: it is another's
    changes[1].create_instance.instance.CopyFrom(reader)
    changes[2].delete_instance.instance_id = prices.instance_id
    metadata = caller("maintainer", "other")
    answer = await service.instances.RehearseChanges(
        RehearseChangesRequest(changes=changes), metadata=metadata
    )
    assert answer.verdicts[0].reason == ""
    assert [each.code for each in answer.verdicts][1:] == [grpc.StatusCode.NOT_FOUND.value[0]] * 2
    assert answer.verdicts[2].reason == "INSTANCE_NOT_FOUND"


async def test_an_empty_change_is_refused_alone(service: RunningInstanceService) -> None:
    changes = [Change(), Change(assumed_id="x"), Change(), Change()]
    changes[1].create_project.project.name = "a"
    changes[2].create_project.project.name = "no name at all!"
    changes[3].create_project.project.name = "fine"
    answer = await service.instances.RehearseChanges(RehearseChangesRequest(changes=changes))
    assert [each.reason for each in answer.verdicts] == ["INVALID_ARGUMENT"] * 3 + [""]
    assert [violation.field for each in answer.verdicts for violation in each.violations] == [
        "change", "assumed_id", "project.name",
    ]  # fmt: skip
    too_many = RehearseChangesRequest(changes=[Change()] * 2001)
    assert (await refusal(service.instances.RehearseChanges(too_many))).reason == "INVALID_ARGUMENT"


async def test_an_id_that_something_has_already_is_refused(service: RunningInstanceService) -> None:
    project = await service.project()
    twice = new_id()
    changes = [Change(assumed_id=each) for each in (project.project_id, twice, twice, "")]
    for change, name in zip(changes, "abcd", strict=True):
        change.create_project.project.name = name
    answer = await service.instances.RehearseChanges(RehearseChangesRequest(changes=changes))
    assert [[each.field for each in verdict.violations] for verdict in answer.verdicts] == [
        ["assumed_id"], [], ["assumed_id"], [],
    ]  # fmt: skip


async def test_a_rehearsal_that_takes_too_long_is_refused_and_delays_no_other_call(
    service: RunningInstanceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def for_ever(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    with monkeypatch.context() as slow:
        slow.setattr(rehearsal, "_LONGEST_SECONDS", 0.05)
        slow.setattr(rehearsal, "create_project", for_ever)
        change = Change()
        change.create_project.project.name = "a"
        found = await refusal(service.instances.RehearseChanges(RehearseChangesRequest(changes=[change])))
    assert found.reason == "REHEARSAL_TOO_LONG"
    await service.instances.CreateProject(CreateProjectRequest(project=Project(name="a")))


async def test_a_rehearsal_out_of_time_returns_the_verdicts_so_far_if_the_caller_accepts_that(
    service: RunningInstanceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = rehearsal._judge

    async def tell(environment: Any, connection: Any, context: Any, change: Change) -> ChangeVerdict:
        if change.create_project.project.name == "slow":
            raise TimeoutError
        return await judge(environment, connection, context, change)

    monkeypatch.setattr(rehearsal, "_judge", tell)
    changes = [Change() for _ in range(4)]
    for change, name in zip(changes, ("a", "", "slow", "b"), strict=True):
        change.create_project.project.name = name
    request = RehearseChangesRequest(changes=changes, allow_partial=True)
    verdicts = (await service.instances.RehearseChanges(request)).verdicts
    assert [each.is_not_judged for each in verdicts] == [False, False, True, True]
    assert [each.code != 0 for each in verdicts] == [False, True, False, False]
    for given, is_allowed in ((changes, False), (changes[2:], True)):
        request = RehearseChangesRequest(changes=given, allow_partial=is_allowed)
        found = await refusal(service.instances.RehearseChanges(request))
        assert found.reason == "REHEARSAL_TOO_LONG"
    await service.instances.CreateProject(CreateProjectRequest(project=Project(name="a")))


async def test_waiting_for_the_tenants_other_changes_does_not_count(
    service: RunningInstanceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    judge = rehearsal._judge

    async def lock_slowly(*arguments: Any) -> None:
        await lock_tenant(*arguments)
        happened.append("locked")

    def limit(seconds: float) -> asyncio.Timeout:
        happened.append("the time begins")
        return asyncio.timeout(seconds)

    async def tell(*arguments: Any) -> ChangeVerdict:
        happened.append("judged")
        return await judge(*arguments)

    monkeypatch.setattr(rehearsal, "lock_tenant", lock_slowly)
    monkeypatch.setattr(rehearsal, "_judge", tell)
    monkeypatch.setattr(rehearsal, "asyncio", SimpleNamespace(timeout=limit, sleep=asyncio.sleep))
    change = Change()
    change.create_project.project.name = "a"
    await service.instances.RehearseChanges(RehearseChangesRequest(changes=[change] * 2))
    assert happened == ["locked", "the time begins", "judged", "judged"]
