"""What only the adapter can meet: a server that does not answer, and one that refuses."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from run_service.domain.pairing import FlowRunState
from run_service.ports import FlowRunRequest, OrchestratorUnavailableError
from run_service.prefect_adapter import PrefectOrchestrator
from support.guarded import Answer, answering
from support.orchestrator_runs import settings_for
from support.prefect_api import prefect_api
from support.proxy import Proxy


async def test_a_server_that_is_away_is_unavailable() -> None:
    async with PrefectOrchestrator(settings_for("http://127.0.0.1:1/api")) as orchestrator:
        for call in (
            orchestrator.ping(),
            orchestrator.find_flow_run("r"),
            orchestrator.get_states(["x"]),
            orchestrator.list_under_way(),
            orchestrator.list_cancelled(datetime(2024, 1, 2, tzinfo=UTC)),
            orchestrator.end_flow_run("x", FlowRunState.CANCELLED, "why"),
        ):
            with pytest.raises(OrchestratorUnavailableError):
                await call


@pytest.mark.parametrize(
    "answer", [Answer("<html>log in</html>", type="text/html"), Answer("{}", 401), Answer("", 502, "")]
)
async def test_an_answer_that_is_not_from_prefect_is_unavailable(answer: Answer) -> None:
    request = FlowRunRequest("default", str(uuid.uuid4()), "refresh", str(uuid.uuid4()), "prices-1")
    async with (
        answering(lambda _: answer) as url,
        PrefectOrchestrator(settings_for(f"{url}/api")) as orchestrator,
    ):
        for call in (
            orchestrator.ping(),
            orchestrator.create_flow_run(request),
            orchestrator.find_flow_run("r"),
            orchestrator.get_states(["x"]),
            orchestrator.list_under_way(),
            orchestrator.list_cancelled(datetime(2024, 1, 2, tzinfo=UTC)),
            orchestrator.end_flow_run("x", FlowRunState.CANCELLED, "why"),
        ):
            with pytest.raises(OrchestratorUnavailableError):
                await call


async def test_an_answer_lost_on_the_way_is_found_by_the_next_attempt(prefect_url: str) -> None:
    """The server did what was asked; the line went deaf before its answer came through."""
    request = FlowRunRequest("default", str(uuid.uuid4()), "refresh", str(uuid.uuid4()), "prices-1")
    async with (
        prefect_api(prefect_url) as api,
        Proxy(prefect_url) as proxy,
        PrefectOrchestrator(settings_for(proxy.url, timeout=2)) as orchestrator,
    ):
        flow = await api.call("POST", "/flows/", {"name": "optaic"})
        name = f"default.{request.instance_id}.refresh"
        body = {"name": name, "flow_id": flow["id"], "entrypoint": "worker.flow.execute"}
        await api.call("POST", "/deployments/", body)
        proxy.deafen()
        with pytest.raises(OrchestratorUnavailableError):
            await orchestrator.create_flow_run(request)
        proxy.heal()
        warm = FlowRunRequest("default", request.instance_id, "refresh", str(uuid.uuid4()), "warm")
        await orchestrator.create_flow_run(warm)  # the deployment's id is known from here on
        proxy.deafen()
        with pytest.raises(OrchestratorUnavailableError):
            await orchestrator.create_flow_run(request)
        proxy.heal()
        flow_run_id = (await orchestrator.create_flow_run(request)).flow_run_id
        found = await api.call(
            "POST", "/flow_runs/filter", {"flow_runs": {"idempotency_key": {"any_": [request.run_id]}}}
        )
        assert [each["id"] for each in found] == [flow_run_id]
        assert found[0]["parameters"] == {
            "tenant_id": "default",
            "instance_id": request.instance_id,
            "flow_kind": "refresh",
            "run_id": request.run_id,
        }
        assert found[0]["name"] == "prices-1"
        assert set(found[0]["tags"]) >= {"optaic", "tenant:default", "flow:refresh"}


async def test_flow_runs_cancelled_in_prefect_before_a_worker_takes_them_are_listed(
    prefect_url: str,
) -> None:
    async with (
        prefect_api(prefect_url) as api,
        PrefectOrchestrator(settings_for(prefect_url)) as orchestrator,
    ):
        flow = await api.call("POST", "/flows/", {"name": "optaic"})
        instance_id = str(uuid.uuid4())
        given = {"tenant_id": "default", "instance_id": instance_id, "flow_kind": "refresh"}
        body = {
            "name": f"default.{instance_id}.refresh",
            "flow_id": flow["id"],
            "entrypoint": "worker.flow.execute",
            "parameters": given,
        }
        deployment = await api.call("POST", "/deployments/", body)
        begin = datetime.now(UTC)
        tomorrow = {"type": "SCHEDULED", "state_details": {"scheduled_time": str(begin + timedelta(days=1))}}
        path = f"/deployments/{deployment['id']}/create_flow_run"
        flow_run_id = (await api.call("POST", path, {"state": tomorrow}))["id"]
        await api.call("POST", f"/flow_runs/{flow_run_id}/set_state", {"state": {"type": "CANCELLING"}})
        listed = await orchestrator.list_cancelled(begin - timedelta(minutes=1))
        assert [each.flow_run_id for each in listed if each.instance_id == instance_id] == [flow_run_id]
        later = await orchestrator.list_cancelled(begin + timedelta(minutes=10))
        assert flow_run_id not in {each.flow_run_id for each in later}
