"""Instances are created and changed from files and values; what stands beside a changed key stays."""

import json
from pathlib import Path

import pytest
from google.protobuf import json_format

from optaic.cli.exits import Exit
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2, instance_service_pb2
from optaic.lineage.v1 import lineage_pb2, lineage_service_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from support.command_line import ID, invoke
from support.fake_services import FakeServices

PROJECT = instance_pb2.Project(project_id="00000000-0000-0000-0000-00000000000a", name="research")


@pytest.fixture
def research(optaic: FakeServices) -> FakeServices:
    """A dataset with a config and labels, in a project."""
    stored = instance_pb2.Instance(
        instance_id=ID, name="prices", etag="e1", labels={"team": "a", "tier": "1"}, revision=4
    )
    stored.dataset.pipeline.config.update({"symbols": ["A"], "window": 5})
    optaic.on("ListInstances", instance_service_pb2.ListInstancesResponse(instances=[stored]))
    optaic.on("GetProject", PROJECT)
    optaic.on("CreateInstance", stored)
    optaic.on("UpdateInstance", stored)
    return optaic


def test_an_instance_is_created_from_a_file_and_values(research: FakeServices, tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(
        "description: of the exchange\nsignal:\n  dataset:\n    pipeline: {config: {window: 5}}\n"
    )
    invoke(
        *("instance", "create", "copy", "--project", "research", "-f", str(file), "--dry-run"),
        *("--set", "signal.dataset.pipeline.config.lag=2", "--set", "owner=ada", "-u", "input=prices"),
    )
    request = research.calls("CreateInstance")[0].request
    assert request.validate_only
    assert (request.instance.name, request.instance.project_id) == ("copy", PROJECT.project_id)
    assert (request.instance.description, request.instance.owner) == ("of the exchange", "ada")
    config = json_format.MessageToDict(request.instance.signal.dataset.pipeline.config)
    assert config == {"window": 5, "lag": 2}
    assert [(each.role, each.resource_id) for each in request.instance.upstream_refs] == [("input", ID)]


def test_a_changed_key_leaves_the_others(research: FakeServices) -> None:
    invoke(
        *("instance", "update", "prices", "--set", "dataset.pipeline.config.window=20"),
        *("--set", "labels.team=b", "--reason", "longer"),
    )
    request = research.calls("UpdateInstance")[0].request
    config = json_format.MessageToDict(request.instance.dataset.pipeline.config)
    assert config == {"symbols": ["A"], "window": 20}
    assert dict(request.instance.labels) == {"team": "b", "tier": "1"}
    assert sorted(request.update_mask.paths) == ["dataset.pipeline.config", "labels"]
    assert (request.instance.etag, request.reason) == ("e1", "longer")


def test_a_value_is_json_or_text(research: FakeServices) -> None:
    invoke(
        *("instance", "update", "prices", "--set", "description=5 days", "--set", "name=daily"),
        *("--set", 'dataset.pipeline.config.symbols=["B", "C"]', "--etag", "mine"),
    )
    instance = research.calls("UpdateInstance")[0].request.instance
    assert (instance.description, instance.name, instance.etag) == ("5 days", "daily", "mine")
    assert json_format.MessageToDict(instance.dataset.pipeline.config)["symbols"] == ["B", "C"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing to change"),
        (("--set", "window"), "path=value"),
        (("--set", ".a=1"), "path=value"),
        (("--set", "nonsense=1"), "has no field 'nonsense'"),
        (("--set", "description=a", "--set", "description.b=1"), "no mapping"),
        (("-u", "prices"), "role=instance"),
    ],
)
def test_wrong_values_are_refused(research: FakeServices, arguments: tuple[str, ...], said: str) -> None:
    assert said in invoke("instance", "update", "prices", *arguments, status=Exit.USAGE).stderr
    assert not research.calls("UpdateInstance")


def test_a_run_is_cancelled_and_retried_and_its_activities_listed(optaic: FakeServices) -> None:
    optaic.on("CancelRun", run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_CANCELLED))
    assert "CANCELLED" in invoke("run", "cancel", "r", "--reason", "wrong day").stdout
    assert optaic.calls("CancelRun")[0].request.reason == "wrong day"
    optaic.on("RetryRun", run_pb2.Run(run_id="r2", status=run_pb2.RUN_STATUS_PENDING))
    shown = invoke("run", "retry", "r", "--force", "--reason", "known", "-o", "json").stdout
    assert json.loads(shown)["run_id"] == "r2"
    assert optaic.calls("RetryRun")[0].request.force_reason == "known"
    activity = run_pb2.Activity(type="pipeline_run.submitted", actor="ada", message="by hand")
    optaic.on("ListActivities", run_service_pb2.ListActivitiesResponse(activities=[activity]))
    assert "by hand" in invoke("run", "activities", "r").stdout


def test_neighbours_of_a_flow_are_listed_and_ordered(optaic: FakeServices) -> None:
    flow = flow_pb2.FlowRef(instance_id=ID, flow_kind=flow_pb2.FLOW_KIND_REFRESH)
    state = lineage_pb2.FlowState(flow=flow, instance_name="signal")
    optaic.on("ListUpstreams", lineage_service_pb2.ListUpstreamsResponse(flows=[state]))
    optaic.on("ListDownstreams", lineage_service_pb2.ListDownstreamsResponse(flows=[state]))
    for direction in ("upstreams", "downstreams"):
        assert invoke("lineage", direction, "prices", "--depth", "2", "-o", "name").stdout == "signal\n"
    assert optaic.calls("ListDownstreams")[0].request.max_depth == 2
    level = lineage_service_pb2.ExecutionLevel(flows=[flow])
    optaic.on("GetExecutionOrder", lineage_service_pb2.GetExecutionOrderResponse(levels=[level]))
    assert "prices" in invoke("lineage", "order", "prices").stdout
    assert json.loads(invoke("lineage", "order", "prices", "-o", "json").stdout)[0][0]["instance_id"] == ID
    optaic.on("InvalidateFlow", state)
    invoke("lineage", "invalidate", "prices", status=Exit.USAGE)
    invoke("lineage", "invalidate", "prices", "--reason", "vendor error")
    assert optaic.calls("InvalidateFlow")[0].request.reason == "vendor error"


def _updated(research: FakeServices, *arguments: str) -> instance_service_pb2.UpdateInstanceRequest:
    invoke("instance", "update", "prices", *arguments)
    request: instance_service_pb2.UpdateInstanceRequest = research.calls("UpdateInstance")[-1].request
    return request


def test_a_file_changes_what_it_names_and_nothing_beside_it(research: FakeServices, tmp_path: Path) -> None:
    file = tmp_path / "change.yaml"
    file.write_text("labels: {team: b}\ndataset: {pipeline: {config: {window: 20}}}\n")
    request = _updated(research, "-f", str(file), "--set", "labels.more=c")
    assert dict(request.instance.labels) == {"team": "b", "tier": "1", "more": "c"}
    config = json_format.MessageToDict(request.instance.dataset.pipeline.config)
    assert config == {"symbols": ["A"], "window": 20}
    assert request.instance.etag == "e1"


def test_a_changed_part_of_a_schedule_leaves_its_other_parts(research: FakeServices) -> None:
    stored = instance_pb2.Instance(instance_id=ID, name="prices", etag="e1")
    stored.schedule.cron.expression = "0 6 * * *"
    stored.schedule.cron.timezone = "Europe/Paris"
    stored.schedule.enabled = False
    stored.schedule.timeout.FromSeconds(60)
    stored.auto_refresh.min_interval.FromSeconds(5)
    research.on("ListInstances", instance_service_pb2.ListInstancesResponse(instances=[stored]))
    schedule = _updated(research, "--set", "schedule.cron.expression=0 7 * * *").instance.schedule
    assert (schedule.cron.expression, schedule.cron.timezone) == ("0 7 * * *", "Europe/Paris")
    assert (schedule.enabled, schedule.timeout.seconds) == (False, 60)
    enabled = _updated(research, "--set", "schedule.enabled=true").instance.schedule
    assert (enabled.enabled, enabled.cron.expression) == (True, "0 6 * * *")
    other = _updated(research, "--set", "schedule.interval.minutes=5").instance.schedule
    assert other.WhichOneof("timing") == "interval"
    assert other.timeout.seconds == 60
    follow = _updated(research, "--set", "auto_refresh.mode=all_upstreams").instance.auto_refresh
    assert follow.min_interval.seconds == 5


@pytest.mark.parametrize(
    ("given", "path", "value"),
    [
        ("description=42", "description", "42"),
        ("owner=true", "owner", "true"),
        ('description="quoted"', "description", '"quoted"'),
        ("definition_version=1.0", "definition_version", "1.0"),
    ],
)
def test_a_field_of_text_takes_the_text_as_it_is(
    research: FakeServices, given: str, path: str, value: str
) -> None:
    assert getattr(_updated(research, "--set", given).instance, path) == value


def test_labels_take_any_name_and_null_removes_a_key(research: FakeServices) -> None:
    labels = _updated(research, "--set", "labels.app.kubernetes.io/name=2").instance.labels
    assert dict(labels) == {"team": "a", "tier": "1", "app.kubernetes.io/name": "2"}
    request = _updated(research, "--set", "dataset.pipeline.config.window=null")
    assert json_format.MessageToDict(request.instance.dataset.pipeline.config) == {"symbols": ["A"]}
    request = _updated(research, "--set", "labels.tier=null", "--set", "owner=null")
    assert dict(request.instance.labels) == {"team": "a"}
    assert (request.instance.owner, list(request.update_mask.paths)) == ("", ["labels", "owner"])


def test_null_removes_nothing_where_nothing_is(research: FakeServices) -> None:
    request = _updated(
        research,
        *("--set", "dataset.pipeline.config.options.lag=null"),
        *("--set", "dataset.pipeline.config.options.n=1"),
    )
    config = json_format.MessageToDict(request.instance.dataset.pipeline.config)
    assert config == {"symbols": ["A"], "window": 5, "options": {"n": 1}}
