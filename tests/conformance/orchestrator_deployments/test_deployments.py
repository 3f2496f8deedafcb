"""What every implementation of the port `Deployments` does, the real server and the fake alike."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from devstack import ports
from devstack.prefect import ensure_work_pool
from instance_service.ports import Deployment, Deployments, OutsideUnavailableError
from instance_service.prefect_adapter import PrefectDeployments
from optaic.rules.deployments import deployment_name, deployment_tags
from optaic.rules.schedules import Timing
from servicekit.ids import new_id
from support.counterparts import FakeDeployments
from support.guarded import Answer, Asked, answering, guarded
from support.polling import eventually
from support.prefect_api import prefect_api

Edit = Callable[[str, str, dict[str, Any]], Awaitable[object]]
CRON = Timing("cron", "America/New_York", cron="30 16 * * 1-5")
INTERVAL = Timing("interval", "UTC", interval_seconds=900, is_active=False)
CLOCK = {"cron": CRON.cron, "timezone": CRON.timezone}


def _schedule(**changes: Any) -> dict[str, Any]:
    return {"slug": CRON.slug, "active": True, "schedule": CLOCK} | changes


INSTALLATION = new_id()


def _deployment(*timings: Timing, is_paused: bool = False, installation_id: str = INSTALLATION) -> Deployment:
    key = ("default", new_id(), "refresh")
    return Deployment(
        deployment_name(*key),
        deployment_tags(installation_id, *key),
        (("flow_kind", "refresh"), ("instance_id", key[1]), ("run_id", ""), ("tenant_id", "default")),
        timings,
        is_paused,
    )


async def _all(deployments: Deployments, installation_id: str = INSTALLATION) -> dict[str, Deployment]:
    return {found.name: found async for page in deployments.pages(installation_id) for found in page}


async def test_an_ensured_object_is_found_as_desired(deployments: Deployments) -> None:
    desired = [_deployment(), _deployment(CRON), _deployment(INTERVAL), _deployment(CRON, is_paused=True)]
    ensured = await deployments.ensure(desired)
    assert set(ensured.ids) == {one.name for one in desired}
    assert not ensured.refusals
    found = await _all(deployments)
    for one in desired:
        assert found[one.name] == one


async def test_each_installation_finds_its_own_and_adopts_by_name(deployments: Deployments) -> None:
    other = new_id()
    ours, theirs = _deployment(), _deployment(installation_id=other)
    ids = (await deployments.ensure([ours, theirs])).ids
    found = await _all(deployments)
    assert found[ours.name] == ours
    assert theirs.name not in found
    assert await _all(deployments, other) == {theirs.name: theirs}
    adopted = replace(theirs, tags=tuple(tag.replace(other, INSTALLATION) for tag in theirs.tags))
    assert (await deployments.ensure([adopted])).ids == {theirs.name: ids[theirs.name]}
    assert (await _all(deployments))[theirs.name] == adopted
    assert not await _all(deployments, other)


async def test_a_server_that_is_there_answers(deployments: Deployments) -> None:
    await deployments.ping()


async def test_ensuring_again_keeps_the_id(deployments: Deployments) -> None:
    desired = _deployment(CRON)
    first = await deployments.ensure([desired])
    assert await deployments.ensure([desired]) == first


@pytest.mark.parametrize(
    "change",
    [
        {"timings": ()},
        {"timings": (INTERVAL,)},
        {"timings": (replace(CRON, cron="0 9 * * *"),)},
        {"is_paused": True},
        {"parameters": (("run_id", "x"),)},
    ],
)
async def test_a_difference_is_repaired_under_the_same_id(
    deployments: Deployments, change: dict[str, object]
) -> None:
    desired = _deployment(CRON)
    first = await deployments.ensure([desired])
    changed = replace(desired, **change)  # type: ignore[arg-type]  # fields by name
    assert await deployments.ensure([changed]) == first
    assert (await _all(deployments))[desired.name] == changed
    assert await deployments.ensure([desired]) == first
    assert (await _all(deployments))[desired.name] == desired


async def test_deletion_can_be_repeated_and_a_deleted_deployment_can_be_created_again(
    deployments: Deployments,
) -> None:
    desired = _deployment()
    first = await deployments.ensure([desired])
    assert not await deployments.delete([desired.name, "not.there.refresh"])
    assert not await deployments.delete([desired.name])
    assert desired.name not in await _all(deployments)
    again = await deployments.ensure([desired])
    assert again.ids[desired.name] != first.ids[desired.name]


async def test_an_empty_batch_makes_no_call(deployments: Deployments) -> None:
    assert not (await deployments.ensure([])).ids
    await deployments.delete([])


@pytest.mark.parametrize(
    "changes",
    [
        {"entrypoint": "other.flow", "tags": ["optaic"]},
        {"path": "/elsewhere"},
        {"pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": "/elsewhere"}}]},
        {"work_queue_name": "aside"},
        {"job_variables": {"env": {"A": "1"}}},
        {"concurrency_limit": 1},
        {"enforce_parameter_schema": True},
        {"schedules": [_schedule(parameters={"instance_id": "another"})]},
        {"schedules": [_schedule(max_scheduled_runs=1)]},
        {"schedules": [_schedule(schedule=CLOCK | {"day_or": False})]},
        {"schedules": [_schedule(schedule={"rrule": "FREQ=DAILY"})]},
    ],
    ids="-".join,
)
async def test_a_foreign_edit_is_seen_and_repaired_under_the_same_id(
    deployments: Deployments, edit: Edit, changes: dict[str, Any]
) -> None:
    desired = _deployment(CRON)
    first = await deployments.ensure([desired])
    await edit(desired.name, first.ids[desired.name], changes)
    assert (await _all(deployments)).get(desired.name) != desired
    assert await deployments.ensure([desired]) == first
    assert (await _all(deployments))[desired.name] == desired


@pytest.mark.parametrize("clock", [{"anchor_date": "2020-01-01T00:07:00Z"}, {"interval": 900.5}])
async def test_a_shifted_interval_is_seen_and_repaired(
    deployments: Deployments, edit: Edit, clock: dict[str, Any]
) -> None:
    desired = _deployment(INTERVAL)
    first = await deployments.ensure([desired])
    shifted = {"interval": 900, "anchor_date": "2020-01-01T00:00:00Z", "timezone": "UTC"} | clock
    changes = {"schedules": [{"slug": INTERVAL.slug, "active": False, "schedule": shifted}]}
    await edit(desired.name, first.ids[desired.name], changes)
    assert (await _all(deployments)).get(desired.name) != desired
    assert await deployments.ensure([desired]) == first
    assert (await _all(deployments))[desired.name] == desired


async def test_a_limit_that_others_share_outlives_its_removal_from_a_deployment(prefect_url: str) -> None:
    await ensure_work_pool(prefect_url, "optaic", "warm")
    adapter = PrefectDeployments(prefect_url, "optaic", 60)
    desired = _deployment()
    deployment_id = (await adapter.ensure([desired])).ids[desired.name]
    async with prefect_api(prefect_url) as api:
        limit = await api.call("POST", "/v2/concurrency_limits/", {"name": new_id(), "limit": 3})
        change = {"global_concurrency_limit_id": limit["id"]}
        await api.call("PATCH", f"/deployments/{deployment_id}", change)
        assert (await _all(adapter))[desired.name] != desired
        await adapter.ensure([desired])
        assert (await _all(adapter))[desired.name] == desired
        assert (await api.call("GET", f"/v2/concurrency_limits/{limit['id']}"))["limit"] == 3
    await adapter.close()


async def test_a_flow_that_was_deleted_in_prefect_is_made_again(prefect_url: str) -> None:
    await ensure_work_pool(prefect_url, "optaic", "warm")
    adapter = PrefectDeployments(prefect_url, "optaic", 60)
    desired = [_deployment()]
    name = desired[0].name
    async with httpx.AsyncClient(base_url=f"{prefect_url}/", trust_env=False) as client:
        before = (await adapter.ensure(desired)).ids[name]
        found = (await client.get(f"deployments/{before}")).raise_for_status().json()
        (await client.delete(f"flows/{found['flow_id']}")).raise_for_status()
    ensured = await adapter.ensure(desired)
    assert not ensured.refusals
    assert ensured.ids[name] != before
    await adapter.close()


async def test_the_deployments_of_each_tenant_are_in_its_own_work_pool(prefect_url: str) -> None:
    """A release before had one pool for all tenants; what waits there is given back, so that it is dispatched again."""
    pool = f"pool-{new_id()}"
    for name in (pool, f"{pool}-acme"):
        await ensure_work_pool(prefect_url, name, "warm")
    adapter = PrefectDeployments(prefect_url, pool, 60)
    first = _deployment()
    others = _deployment()
    foreign = replace(others, parameters=tuple({**dict(others.parameters), "tenant_id": "acme"}.items()))
    async with prefect_api(prefect_url) as api:
        ids = (await adapter.ensure([first, foreign])).ids

        async def pool_of(name: str) -> str:
            return str((await api.call("GET", f"/deployments/{ids[name]}"))["work_pool_name"])

        assert [await pool_of(each.name) for each in (first, foreign)] == [pool, f"{pool}-acme"]
        await api.call("PATCH", f"/deployments/{ids[foreign.name]}", {"work_pool_name": pool})
        assert (await _all(adapter))[foreign.name] != foreign
        waiting = await api.trigger(ids[foreign.name])
        kept = await api.trigger(ids[first.name])
        assert (await adapter.ensure([first, foreign])).ids == ids
        assert [await pool_of(each.name) for each in (first, foreign)] == [pool, f"{pool}-acme"]
        assert (await _all(adapter))[foreign.name] == foreign
        assert (await api.state(waiting))["type"] == "CRASHED"
        assert (await api.state(kept))["type"] == "SCHEDULED"
    await adapter.close()


async def test_a_missing_work_pool_is_not_there_yet(prefect_url: str) -> None:
    adapter = PrefectDeployments(prefect_url, "no-such-pool", 60)
    with pytest.raises(OutsideUnavailableError) as refused:
        await adapter.ensure([_deployment(), _deployment()])
    await adapter.close()
    assert refused.value.reason == "WorkPoolMissing"


async def test_a_server_with_authentication_gets_the_key_and_has_its_own_error() -> None:
    async with guarded("Bearer secret", "[]") as url:
        adapter = PrefectDeployments(f"{url}/api", "optaic", 2, api_key="secret")
        assert not await _all(adapter)
        await adapter.close()
        for key in ("", "wrong"):
            adapter = PrefectDeployments(f"{url}/api", "optaic", 2, api_key=key)
            with pytest.raises(OutsideUnavailableError) as refused:
                await adapter.ensure([_deployment()])
            assert refused.value.reason == "PrefectUnauthorized"
            await adapter.close()


async def test_one_that_is_forbidden_is_refused_alone() -> None:
    forbidden, allowed = _deployment(), _deployment()

    def answer(asked: Asked) -> Answer:
        if forbidden.name in asked.body and asked.path == "/api/deployments/":
            return Answer("{}", 403)
        return Answer("[]" if asked.path.endswith("/filter") else '{"id": "1"}')

    async with answering(answer) as url:
        adapter = PrefectDeployments(f"{url}/api", "optaic", 2)
        ensured = await adapter.ensure([forbidden, allowed])
        await adapter.close()
    assert set(ensured.ids) == {allowed.name}
    assert "OPTAIC_PREFECT_API_KEY" in ensured.refusals[forbidden.name]


async def test_one_that_may_not_be_removed_is_refused_alone() -> None:
    stored = {"forbidden": _deployment(), "allowed": _deployment()}
    names = [one.name for one in stored.values()]

    def answer(asked: Asked) -> Answer:
        if asked.path.endswith("/forbidden"):
            return Answer("{}", 403)
        if asked.path.endswith("/allowed"):
            del stored["allowed"]
        return Answer(json.dumps([{"id": key, "name": one.name} for key, one in stored.items()]))

    async with answering(answer) as url:
        adapter = PrefectDeployments(f"{url}/api", "optaic", 2)
        refusals = await adapter.delete(names)
        await adapter.close()
    assert set(refusals) == {names[0]}
    assert "OPTAIC_PREFECT_API_KEY" in refusals[names[0]]
    assert set(stored) == {"forbidden"}


async def test_a_caller_without_permission_gets_an_error() -> None:
    async with answering(lambda _: Answer("{}", 403)) as url:
        adapter = PrefectDeployments(f"{url}/api", "optaic", 2)
        for call in (adapter.ensure([_deployment()]), adapter.delete(["a.b.c"])):
            with pytest.raises(OutsideUnavailableError) as refused:
                await call
            assert refused.value.reason == "PrefectUnauthorized"
        await adapter.close()


@pytest.mark.parametrize(
    "answer", [Answer("<html>log in</html>", type="text/html"), Answer("{", 500), Answer("", 404, "")]
)
async def test_an_answer_that_is_not_from_prefect_is_unavailable(answer: Answer) -> None:
    async with answering(lambda _: answer) as url:
        adapter = PrefectDeployments(f"{url}/api", "optaic", 2)
        for call in (adapter.ensure([_deployment()]), adapter.delete(["a.b.c"]), _all(adapter)):
            with pytest.raises(OutsideUnavailableError):
                await call
        await adapter.close()


async def test_a_server_that_is_down_is_unavailable() -> None:
    adapter = PrefectDeployments(f"http://127.0.0.1:{ports.find_free()}/api", "optaic", 2)
    for call in (adapter.ensure([_deployment()]), adapter.delete(["a.b.c"]), _all(adapter)):
        with pytest.raises(OutsideUnavailableError) as refused:
            await call
        assert refused.value.reason == "PrefectUnavailable"
    await adapter.close()


async def test_planned_and_unplanned_deployments_are_distinguished(deployments: Deployments) -> None:
    scheduled, manual, stopped = _deployment(CRON), _deployment(), _deployment(INTERVAL)
    await deployments.ensure([scheduled, manual, stopped])
    if isinstance(deployments, FakeDeployments):
        deployments.unplanned.update({manual.name, stopped.name})
    names, now = [scheduled.name, manual.name, stopped.name, _deployment().name], dt.datetime.now(dt.UTC)

    async def is_planned() -> bool:
        return await deployments.planned(names, now) == {scheduled.name}

    await eventually(is_planned)
    if not isinstance(deployments, FakeDeployments):
        assert await deployments.planned(names, now + dt.timedelta(days=1000)) == set()
    assert await deployments.planned([], now) == set()
