"""A state that the last landed release made starts with today's code, and nothing in it changes by itself."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from optaic.client import AsyncClient, word
from optaic.errors import InvalidArgumentError
from optaic.run.v1 import run_pb2
from support import upgrade_state
from support.client import connected_client
from support.earlier_release import earlier_stack
from support.plugin_packages import UPGRADE
from support.polling import PATIENCE, eventually
from support.stack import RunningStack, running_stack

LAST_RELEASE = "f8bf54faf27906d6d1dfcd65f58fb685d3ebe7f3"
PROGRAM = Path(upgrade_state.__file__)
# The only flows with an active run when the earlier release stopped.
RUNNING, PENDING = "long", "paused"


@dataclass(frozen=True)
class Upgrade:
    """What the earlier release recorded before it crashed, and today's stack over the same state."""

    before: dict[str, Any]
    pending_run_id: str
    stack: RunningStack

    @property
    def ids(self) -> dict[str, str]:
        """Instance ids by name."""
        return dict(self.before["ids"])


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any], str]]:
    """Let the earlier release make a state, with a run at work and one that waits; then crash it."""
    folder = tmp_path_factory.mktemp("upgrade")
    with earlier_stack(LAST_RELEASE, folder) as earlier:
        ids = folder / "ids.json"
        ids.write_text(earlier.run(PROGRAM, "populate", str(folder)), encoding="utf-8")
        earlier.kill_worker()
        pending: str = json.loads(earlier.run(PROGRAM, "add_pending", str(ids)))
        before: dict[str, Any] = json.loads(earlier.run(PROGRAM, "record", str(ids)))
        asyncio.run(earlier.crash())
        yield earlier.settings.root, before, pending


@pytest.fixture(scope="module")
def upgrade(crashed: tuple[Path, dict[str, Any], str]) -> Iterator[Upgrade]:
    """Start today's code on it."""
    state, before, pending = crashed
    with running_stack(state, UPGRADE) as stack:
        yield Upgrade(before, pending, stack)


@pytest.fixture
async def client(upgrade: Upgrade) -> AsyncIterator[AsyncClient]:
    async with connected_client(upgrade.stack) as connected:
        yield connected


async def test_active_runs_end_and_no_other_flow_changes_by_itself(
    upgrade: Upgrade, client: AsyncClient
) -> None:
    pending = await (await client.runs.handle(upgrade.pending_run_id)).wait(timeout=PATIENCE)
    assert pending.status == run_pb2.RUN_STATUS_COMPLETED, pending.error
    (long,) = await client.runs.list(upgrade.ids[RUNNING])
    ended = await (await client.runs.handle(long.run_id)).wait(timeout=PATIENCE)
    assert (ended.status, ended.error.type) == (run_pb2.RUN_STATUS_FAILED, "WORKER_LOST")

    before = upgrade.before

    async def is_settled() -> bool:
        """The outside systems have answered, and status-service has heard of the ends of both runs."""
        after = await upgrade_state.record(client, upgrade.ids)
        states = {name: facts["state"] for name, facts in after["instances"].items()}
        words = [word(await client.status.get(upgrade.ids[name]), "status") for name in (RUNNING, PENDING)]
        return words == ["ERROR", "READY"] and states == {
            name: facts["state"] for name, facts in before["instances"].items()
        }

    await eventually(is_settled, 90)
    after = await upgrade_state.record(client, upgrade.ids)
    for name in upgrade.ids:
        assert after["instances"][name]["revision"] == before["instances"][name]["revision"], name
        if name not in {RUNNING, PENDING}:
            assert after["flows"][name] == before["flows"][name], name
        for kind, flow in after["flows"][name].items():
            assert flow["fingerprint"] == before["flows"][name][kind]["fingerprint"], name


async def test_ready_flows_run_again_without_a_new_version(upgrade: Upgrade, client: AsyncClient) -> None:
    for name in ("prices", "momentum", "backtest", "table", "columnar"):
        flow = (await client.status.get(upgrade.ids[name])).flows[0]
        assert word(flow, "status") == "READY", name
        run = await (await client.runs.submit(upgrade.ids[name])).wait(timeout=PATIENCE)
        assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
        again = await client.lineage.state(upgrade.ids[name], flow.flow_kind)
        assert again.current_version.version == flow.version, name
        assert again.is_fresh, name


async def test_stale_and_failed_flows_run(upgrade: Upgrade, client: AsyncClient) -> None:
    for name in ("source", "moved"):
        assert word(await client.status.get(upgrade.ids[name]), "status") == "STALE"
    for name in ("source", "moved"):
        run = await (await client.runs.submit(upgrade.ids[name])).wait(timeout=PATIENCE)
        assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
    assert (await client.lineage.state(upgrade.ids["moved"])).is_fresh
    failing = await (await client.runs.submit(upgrade.ids["failing"])).wait(timeout=PATIENCE)
    assert (failing.status, failing.error.type) == (run_pb2.RUN_STATUS_FAILED, "ArithmeticError")


@pytest.mark.parametrize("method", sorted(upgrade_state.LISTS))
async def test_a_page_token_of_an_earlier_release_continues_the_list_or_is_refused(
    upgrade: Upgrade, client: AsyncClient, method: str
) -> None:
    page = upgrade.before["pages"][method]
    assert page["page_token"], "the earlier release answered everything on one page"
    try:
        answer = await upgrade_state.list_page(client, method, page)
    except InvalidArgumentError as refused:
        assert refused.reason == "INVALID_PAGE_TOKEN"  # noqa: PT017 - either end is right
    else:
        assert answer.ByteSize() > 0


async def test_a_watch_resumes_after_the_earlier_release(upgrade: Upgrade, client: AsyncClient) -> None:
    instance_id = upgrade.ids[PENDING]
    async with asyncio.timeout(60):
        async for change in client.status.watch([instance_id], from_revision=upgrade.before["revision"]):
            assert change.revision > upgrade.before["revision"]
            if change.instance_status.instance_id == instance_id:
                break
