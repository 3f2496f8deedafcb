"""run-service publishes the states of runs and the alerts of monitorings on the channels of Centrifugo."""

from __future__ import annotations

import asyncio
from typing import Any

from devstack.postgres import Postgres
from optaic.common.v1 import flow_pb2
from optaic.rules.realtime import alerts_channel, progress_channel
from optaic.run.v1 import run_pb2
from support.centrifugo import centrifugo_binary, centrifugo_server
from support.polling import eventually
from support.run_service import run_service

_TENANT = "default"


async def test_the_states_of_a_run_and_its_alerts_go_to_their_channels(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    await asyncio.to_thread(centrifugo_binary)
    alert = run_pb2.MonitoringAlert(metric="psi", column="close", value=1.25, threshold=0.25)
    async with (
        centrifugo_server() as server,
        run_service(nats_url, has_loops=True, **server.settings) as service,
    ):
        instance = service.instances.add(flow_kind=flow_pb2.FLOW_KIND_MONITORING)
        run = await service.submit(instance, flow_kind=flow_pb2.FLOW_KIND_MONITORING)
        token = (await service.start(run.run_id)).fencing_token
        monitoring = run_pb2.MonitoringResult(drift_share=0.1, alert_count=1, alerts=[alert])
        await service.complete(run.run_id, token, monitoring=monitoring)

        async def ended() -> list[dict[str, Any]]:
            found = await server.history(progress_channel(_TENANT, run.run_id))
            return found if len(found) == 3 else []

        told = await eventually(ended)
        alerts = await eventually(lambda: server.history(alerts_channel(_TENANT, run.instance_id)))
    assert [each["status"] for each in told] == ["pending", "running", "completed"]
    assert told[0].keys() == {"status", "progress_pct", "progress_message", "time"}
    assert [(each["metric"], each["column"], each["value"], each["threshold"]) for each in alerts] == [
        ("psi", "close", 1.25, 0.25)
    ]
    assert (alerts[0]["run_id"], alerts[0]["flow_kind"]) == (run.run_id, "monitoring")
