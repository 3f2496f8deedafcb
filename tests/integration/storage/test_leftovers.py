"""A sweep removes the files that no run and no version has, and nothing else; in a folder as in an object store."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from typing import Any, Self

import grpc
import pytest

from optaic import storage
from optaic.common.v1 import flow_pb2
from optaic.storage import local, remote
from servicekit.ids import new_id
from support.fake_services import refuse
from support.leftovers import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PART,
    RUNNING,
    TenantData,
    days,
    draft,
    unknown_run,
)
from worker.builtin.parquet_store import ParquetStore
from worker.leftovers import sweeping
from worker.leftovers.memory import Memory
from worker.leftovers.naming import MARGIN
from worker.leftovers.places import Place

DAY = dt.timedelta(days=1)


async def test_of_runs_only_what_they_keep_stays(data: TenantData) -> None:
    one = data.add_instance()
    kept = [
        f"refresh/runs/{data.runs[one][0].run_id}/anything",
        f"refresh/runs/{data.add_run(one, RUNNING)}/anything",
        f"refresh/runs/{data.add_run(one, FAILED, 'traceback.txt')}/traceback.txt",
        f"refresh/runs/{data.add_run(one, FAILED, 'model')}/model/deep/file",
        f"refresh/runs/{data.add_run(one, CANCELLED, '')}/deep/anything",
        f"training/runs/{data.add_run(one, 99, flow_kind=flow_pb2.FLOW_KIND_TRAINING)}/of a later release",
        "refresh/other/file",
        "Odd/runs/x/file",
        "file",
    ]
    left = [
        f"refresh/runs/{data.add_run(one, FAILED, 'model')}/model2",
        f"refresh/runs/{data.add_run(one, FAILED)}/deep/part.parquet",
        f"refresh/runs/{data.add_run(one, CANCELLED)}/x",
        f"refresh/runs/{unknown_run()}/x",
        "refresh/runs/not an id/x",
        f"training/runs/{data.runs[one][0].run_id}/x",  # of another flow
    ]
    data.put(one, *kept, *left)
    shown = await data.sweep(is_removing=False)
    assert {each.path for _, each in shown.leftovers} == set(left)
    assert shown.size == 5 * len(left)
    assert data.list(one) == {*kept, *left}
    swept = await data.sweep()
    assert {each.path for _, each in swept.leftovers} == set(left)
    assert not swept.problems
    assert data.list(one) == set(kept)
    assert not (await data.sweep()).leftovers


@pytest.mark.parametrize("flow_kind", ["refresh", "preview"])
async def test_nothing_of_a_flow_goes_that_has_an_active_run(data: TenantData, flow_kind: str) -> None:
    one = data.add_instance()
    data.add_run(one, RUNNING, flow_kind=flow_pb2.FlowKind.Value(f"FLOW_KIND_{flow_kind.upper()}"))
    data.put(one, f"refresh/data/{PART}", f"preview/data/{PART}")
    await data.sweep()
    assert data.list(one) == {f"{flow_kind}/data/{PART}"}


async def test_nothing_goes_that_is_younger_than_a_day(data: TenantData) -> None:
    one = data.add_instance()
    data.put(one, f"refresh/data/{PART}", f"refresh/runs/{unknown_run()}/x")
    before = data.list(one)
    assert not (await data.sweep(margin=MARGIN)).leftovers
    assert data.list(one) == before


async def test_a_clock_of_the_worker_that_is_wrong_removes_nothing(
    data: TenantData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place says what time it is; where it is a folder of this machine, there is no other clock."""

    class Late(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Self:
            return cls.fromtimestamp(4e9, tz)

    one = data.add_instance()
    data.put(one, f"refresh/runs/{unknown_run()}/x")
    for module in (sweeping, local, remote):
        monkeypatch.setattr(module, "datetime", Late)
    assert not (await data.sweep(margin=MARGIN)).leftovers
    assert len((await data.sweep()).leftovers) == 1


async def test_a_status_of_a_later_release_may_be_that_of_an_active_run(data: TenantData) -> None:
    one = data.add_instance()
    data.add_run(one, 99)
    data.put(one, f"refresh/data/{PART}", f"refresh/runs/{unknown_run()}/x")
    await data.sweep()
    assert data.list(one) == {f"refresh/data/{PART}"}


@pytest.mark.parametrize("status", [RUNNING, COMPLETED])
async def test_a_flow_of_a_later_release_keeps_its_instance_and_ends_no_sweep(
    data: TenantData, status: int
) -> None:
    later, other = data.add_instance(), data.add_instance()
    data.put(later, f"later/runs/{data.add_run(later, status, flow_kind=99)}/x")
    for each in (later, other):
        data.put(each, f"refresh/data/{PART}", f"refresh/runs/{unknown_run()}/x")
    swept = await data.sweep()
    assert [each.partition(": ")[0] for each in swept.problems] == [later]
    assert (len(data.list(later)), data.list(other)) == (3, set())


@pytest.mark.parametrize("place", ["refresh/runs/{}/x", "training/runs/{}/deep/x"])
async def test_nothing_goes_where_the_record_of_the_newest_run_is_lost(data: TenantData, place: str) -> None:
    """The database was restored from a backup that is older than the run."""
    lost, other = data.add_instance(), data.add_instance()
    for each in (lost, other):
        data.put(each, f"refresh/data/{PART}", f"refresh/runs/{unknown_run()}/x")
    data.put(lost, place.format(new_id()))
    before = data.list(lost)
    swept = await data.sweep()
    assert [each.partition(": ")[0] for each in swept.problems] == [lost]
    assert "the record may have been lost" in swept.problems[0]
    assert (data.list(lost), data.list(other)) == (before, set())


async def test_nothing_goes_where_run_service_knows_no_run(data: TenantData) -> None:
    one = new_id()
    data.put(one, f"refresh/runs/{unknown_run()}/x")
    swept = await data.sweep()
    assert [each.partition(": ")[0] for each in swept.problems] == [one]
    assert len(data.list(one)) == 1


async def test_nothing_goes_while_run_service_refuses(data: TenantData) -> None:
    def refused(_: Any, context: grpc.ServicerContext) -> None:
        refuse(context, grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", "no")

    one = data.add_instance()
    data.put(one, f"refresh/runs/{unknown_run()}/x")
    data.services.on("ListRunOutputs", refused)
    with pytest.raises(Exception, match="no"):
        await data.sweep()
    assert len(data.list(one)) == 1


async def test_two_sweeps_at_once_remove_what_one_removes(data: TenantData) -> None:
    one = data.add_instance("worker.builtin.parquet_store:ParquetStore")
    version = ParquetStore().write(days(3), None, data.flow(one).data_uri).physical_version
    kept = data.list(one)
    left = [f"refresh/runs/{unknown_run()}/deep/{number}" for number in range(20)]
    data.put(one, *left, *(f"refresh/data/{version}/{draft('data.parquet')}" for _ in range(20)))
    swept = await data.sweep_at_once(2)
    assert [each.problems for each in swept] == [[], []]
    assert len({leftover.path for each in swept for _, leftover in each.leftovers}) == 40
    assert data.list(one) == kept


async def test_a_sweep_ends_where_the_store_fails_and_the_next_one_begins_behind(
    data: TenantData, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, other = sorted(data.add_instance() for _ in range(2))
    for each in (broken, other):
        data.put(each, *(f"refresh/runs/{unknown_run()}/{number}" for number in range(3)))
    tried, remove = [], Place.remove_together

    def fail(place: Place, paths: Sequence[str], before: dt.datetime) -> Sequence[str]:
        tried.append(place.uri.rpartition("/")[2])
        if tried[-1] == broken:
            raise storage.StorageUnavailableError("away")
        return remove(place, paths, before)

    monkeypatch.setattr(Place, "remove_together", fail)
    memory = Memory()
    swept = await data.sweep(memory=memory)
    assert (tried, swept.leftovers) == ([broken], [])
    assert swept.problems == [f"{broken}: away; the sweep ends here"]
    assert len((await data.sweep(memory=memory)).leftovers) == 3
    assert list(dict.fromkeys(tried[1:])) == [other, broken]
    assert (len(data.list(broken)), data.list(other)) == (3, set())


async def test_a_worker_that_stops_removes_nothing_more(
    folder: TenantData, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, remove = asyncio.Event(), Place.remove_together

    def remove_one(place: Place, paths: Sequence[str], before: dt.datetime) -> Sequence[str]:
        stop.set()
        return remove(place, paths, before)

    monkeypatch.setattr(Place, "remove_together", remove_one)
    for each in [folder.add_instance() for _ in range(2)]:
        folder.put(each, *(f"refresh/runs/{unknown_run()}/{number}" for number in range(3)))
    swept = await folder.sweep(stop=stop)
    assert (len(swept.leftovers), swept.problems) == (1, [])
    assert len(folder.list()) == 5
    assert not (await folder.sweep(stop=stop)).leftovers


async def test_only_some_problems_are_named(folder: TenantData, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(23):
        folder.put(new_id(), f"refresh/runs/{unknown_run()}/x")
    swept = await folder.sweep()
    assert (len(swept.problems), swept.more_problems) == (20, 3)
    assert capsys.readouterr().out.count("leftovers not removed") == 21


async def test_a_completed_run_keeps_its_folder(data: TenantData) -> None:
    one = data.add_instance()
    data.put(one, f"training/runs/{data.add_run(one, COMPLETED, flow_kind=flow_pb2.FLOW_KIND_TRAINING)}/x")
    assert not (await data.sweep()).leftovers
