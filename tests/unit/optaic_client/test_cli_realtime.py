"""`optaic status token`: which channels, where, until when; the tokens themselves only when they are asked for."""

import datetime as dt
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from optaic.instance.v1 import instance_pb2
from optaic.rules.realtime import alerts_channel, progress_channel, status_channel
from optaic.status.v1 import status_service_pb2 as api
from support.command_line import ID, PRICES, invoke
from support.fake_services import FakeServices

RUN = "01900000-0000-7000-8000-000000000009"
ADDRESS = "wss://live.example/connection/websocket"
STATUS, ALERTS, PROGRESS = (
    status_channel("acme", ID),
    alerts_channel("acme", ID),
    progress_channel("acme", RUN),
)
SECRETS = ("connection-secret", "status-secret", "alerts-secret", "progress-secret")


@pytest.fixture(autouse=True)
def made(optaic: FakeServices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTAIC_REALTIME_URL", ADDRESS)
    answer = api.CreateRealtimeTokenResponse(connection_token=SECRETS[0])
    answer.expire_time.FromDatetime(dt.datetime(2026, 11, 29, 8, 5, tzinfo=dt.UTC))
    topics = (api.REALTIME_TOPIC_STATUS, api.REALTIME_TOPIC_ALERTS)
    for topic, channel, secret in zip(topics, (STATUS, ALERTS), SECRETS[1:], strict=False):
        answer.subscriptions.add(topic=topic, instance_id=ID, channel=channel, token=secret)
    answer.subscriptions.add(
        topic=api.REALTIME_TOPIC_PROGRESS, run_id=RUN, channel=PROGRESS, token=SECRETS[3]
    )
    optaic.on("CreateRealtimeToken", answer)


def test_channels_address_and_expiry_are_shown_and_no_token(optaic: FakeServices) -> None:
    told = invoke("status", "token", "prices", "--run", RUN, "--without-tenant").output
    for each in (ADDRESS, "2026-11-29 08:05:00Z", "prices", STATUS, ALERTS, RUN, PROGRESS):
        assert each in told
    assert not [each for each in SECRETS if each in told]
    request = optaic.calls("CreateRealtimeToken")[0].request
    assert (list(request.instance_ids), list(request.run_ids)) == ([ID], [RUN])
    assert request.without_tenant
    assert not [each for each in SECRETS if each in invoke("status", "token", "prices", "-o", "json").output]


def test_tokens_are_printed_if_they_are_asked_for() -> None:
    told = invoke("status", "token", "prices", "--show-tokens").stdout
    assert [each for each in SECRETS if each in told] == list(SECRETS)
    content = json.loads(invoke("status", "token", "prices", "--show-tokens", "-o", "json").stdout)
    assert content["url"] == ADDRESS
    assert content["connection_token"] == SECRETS[0]
    assert content["expire_time"] == "2026-11-29T08:05:00Z"
    assert [(each["instance_name"], each["channel"], each["token"]) for each in content["subscriptions"]] == [
        ("prices", STATUS, SECRETS[1]),
        ("prices", ALERTS, SECRETS[2]),
        ("", PROGRESS, SECRETS[3]),
    ]


def test_the_address_is_that_of_the_stack_whose_services_are_called(
    optaic: FakeServices, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OPTAIC_REALTIME_URL")
    told = invoke("status", "token", "prices")
    assert "set OPTAIC_REALTIME_URL" in told.stderr
    services = dict.fromkeys(("instance", "run", "lineage", "status"), optaic.address)
    for known, url in (
        ({**services, "centrifugo": "http://127.0.0.1:8000"}, "ws://127.0.0.1:8000/connection/websocket"),
        ({**services, "status": "127.0.0.1:1", "centrifugo": "http://127.0.0.1:8000"}, ""),
        ({**services, "centrifugo": ""}, ""),
    ):
        (tmp_path / ".state").mkdir(exist_ok=True)
        (tmp_path / ".state" / "stack.json").write_text(json.dumps({"endpoints": known}))
        assert json.loads(invoke("status", "token", "prices", "-o", "json").stdout)["url"] == url


def test_instances_are_looked_up_side_by_side_and_stay_in_order(optaic: FakeServices) -> None:
    ids = [f"01900000-0000-7000-8000-0000000000{number:02}" for number in range(20)]
    both = threading.Barrier(2, timeout=30)

    def answer(request: Any, _: object) -> instance_pb2.Instance:
        both.wait()  # until another is looked up at the same time
        return instance_pb2.Instance(instance_id=request.instance_id, name=PRICES.name)

    optaic.on("GetInstance", answer)
    invoke("status", "token", *ids)
    assert list(optaic.calls("CreateRealtimeToken")[0].request.instance_ids) == ids
