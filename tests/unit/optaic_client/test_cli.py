"""The command line against the same services: tables, JSON, clear refusals, exit statuses."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import struct_pb2
from google.rpc import error_details_pb2

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2, instance_service_pb2, spec_pb2
from optaic.lineage.v1 import lineage_pb2, lineage_service_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from optaic.status.v1 import status_service_pb2
from support.command_line import ID, invoke
from support.fake_services import FakeServices, refuse


@pytest.mark.usefixtures("optaic")
def test_instances_are_listed() -> None:
    table = invoke("instance", "list").stdout
    assert "prices" in table
    assert "dataset" in table
    assert "ACTIVE" in table
    assert ID in table
    assert json.loads(invoke("instance", "list", "-o", "json").stdout)[0]["instance_id"] == ID


@pytest.mark.parametrize("given", [ID, "prices"])
@pytest.mark.usefixtures("optaic")
def test_an_instance_is_shown_by_id_or_name(given: str) -> None:
    assert "default.x.refresh" in invoke("instance", "get", given).stdout
    assert json.loads(invoke("instance", "get", given, "-o", "json").stdout)["name"] == "prices"


def test_an_unknown_name_is_a_clear_refusal(optaic: FakeServices) -> None:
    optaic.on("ListInstances", instance_service_pb2.ListInstancesResponse())
    optaic.on("ListInstanceStatuses", status_service_pb2.ListInstanceStatusesResponse())
    result = invoke("instance", "get", "nothing", status=3)
    assert "there is no instance named 'nothing'" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("instance", "list", "-o", "xml"),
        ("instance", "list", "--kind", "car"),
        ("run", "submit"),
        ("run", "submit", "prices", "-p", "no equals sign"),
        ("run", "submit", "prices", "--flow", "fly"),
        ("nothing",),
    ],
)
@pytest.mark.usefixtures("optaic")
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...]) -> None:
    invoke(*arguments, status=2)


def test_a_run_may_be_forced_or_allowed_to_delete_with_a_reason(optaic: FakeServices) -> None:
    optaic.on("SubmitRun", run_pb2.Run(run_id=ID))
    for flags in (("--force",), ("--allow-deletion",), ("--force", "--allow-deletion")):
        invoke("run", "submit", "prices", *flags, "--reason", "moved")
        request = optaic.calls("SubmitRun")[-1].request
        assert request.force is ("--force" in flags)
        assert request.allow_deletion is ("--allow-deletion" in flags)
        assert request.force_reason == ("moved" if request.force else "")
        assert request.allow_deletion_reason == ("moved" if request.allow_deletion else "")


def test_a_version_of_another_system_is_reported(optaic: FakeServices) -> None:
    optaic.on(
        "ReportExternalVersion", run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_COMPLETED, run_number=3)
    )
    shown = invoke("run", "report", "prices", "--version", "v7", "--last-date", "2026-11-27", "-o", "json")
    assert json.loads(shown.stdout)["run_id"] == "r"
    assert "COMPLETED" in invoke("run", "report", "prices", "--version", "v8").stdout
    first, second = (each.request for each in optaic.calls("ReportExternalVersion"))
    assert (first.instance_id, first.external_version, first.last_data_date) == (ID, "v7", "2026-11-27")
    assert (second.external_version, second.last_data_date) == ("v8", "")
    invoke("run", "report", "prices", status=2)
    optaic.on("GetRun", run_pb2.Run(run_id=ID, external_version="v7", actor="vendor"))
    assert "version v7 of another system, reported by vendor" in invoke("run", "get", ID).stdout


def test_a_run_is_submitted(optaic: FakeServices) -> None:
    optaic.on("SubmitRun", run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_PENDING, run_number=1))
    shown = invoke("run", "submit", "prices", "--mode", "full", "-p", "n=3", "-p", "text=abc", "-o", "json")
    assert json.loads(shown.stdout)["run_id"] == "r"
    request = optaic.calls("SubmitRun")[0].request
    assert (request.instance_id, request.mode) == (ID, run_pb2.RUN_MODE_FULL)
    assert dict(request.parameters) == {"n": 3, "text": "abc"}


def test_a_refused_run_names_every_blocking_flow(optaic: FakeServices) -> None:
    failure = error_details_pb2.PreconditionFailure(
        violations=[
            error_details_pb2.PreconditionFailure.Violation(
                type="NOT_INITIALIZED", subject=f"{name}/refresh", description="it has never succeeded"
            )
            for name in ("prices", "signal")
        ]
    )
    code = grpc.StatusCode.FAILED_PRECONDITION
    optaic.on(
        "SubmitRun", lambda _, context: refuse(context, code, "UPSTREAM_NOT_READY", "not ready", [failure])
    )
    result = invoke("run", "submit", "prices", status=6)
    assert "prices/refresh: it has never succeeded" in result.stderr
    assert "signal/refresh" in result.stderr


@pytest.mark.parametrize(
    ("end", "status"),
    [(run_pb2.RUN_STATUS_COMPLETED, 0), (run_pb2.RUN_STATUS_FAILED, 9), (run_pb2.RUN_STATUS_CANCELLED, 10)],
)
def test_a_run_is_followed_to_its_end(
    optaic: FakeServices, end: run_pb2.RunStatus.ValueType, status: int
) -> None:
    def watch(_: Any, __: grpc.ServicerContext) -> Iterator[run_pb2.Run]:
        yield run_pb2.Run(
            run_id="r", status=run_pb2.RUN_STATUS_RUNNING, progress_pct=40, progress_message="[reading]"
        )
        yield run_pb2.Run(
            run_id="r",
            status=end,
            progress_message="writing",
            error=run_pb2.RunError(type="NoDataInRange", message="no rows"),
        )

    optaic.on("GetRun", run_pb2.Run(run_id="r"))
    optaic.on("WatchRun", watch)
    result = invoke("run", "watch", "r", status=status)
    assert "40%" in result.stdout
    assert "[reading]" in result.stdout
    assert "writing" not in result.stdout  # the run has ended
    assert ("NoDataInRange no rows" in result.stderr) == bool(status)
    lines = invoke("run", "watch", "r", "-o", "json", status=status).stdout.splitlines()
    assert [json.loads(line)["run_id"] for line in lines] == ["r", "r"]


def test_a_run_shows_its_figures_and_warnings(optaic: FakeServices) -> None:
    run = run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_COMPLETED)
    run.metrics.update(
        {
            "sessions": 250,
            "total_return": 0.123456789,
            "beta": None,
            "stale_prices": ["ABC"],
            "warnings": ["3 dates are no session", "1 members have no close"],
        }
    )
    optaic.on("GetRun", run)
    lines = invoke("run", "get", "r").stdout.splitlines()
    figures = {tuple(line.split(maxsplit=1)) for line in lines if line.count(" ")}
    assert {
        ("beta", "undefined"),
        ("sessions", "250"),
        ("total_return", "0.123457"),
        ("stale_prices", '["ABC"]'),
    } <= {(name, value.strip()) for name, value in figures}
    assert lines[-2:] == ["warning: 3 dates are no session", "warning: 1 members have no close"]
    assert json.loads(invoke("run", "get", "r", "-o", "json").stdout)["metrics"]["sessions"] == 250


def test_a_failed_run_shows_why(optaic: FakeServices) -> None:
    error = run_pb2.RunError(type="NoDecisions", message="signals.primary: nobody may be chosen")
    optaic.on("GetRun", run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_FAILED, error=error))
    assert "NoDecisions: signals.primary: nobody may be chosen" in invoke("run", "get", "r").stdout


def test_runs_are_listed(optaic: FakeServices) -> None:
    runs = [run_pb2.Run(run_id=f"r{n}", run_number=n, status=run_pb2.RUN_STATUS_COMPLETED) for n in (2, 1)]
    optaic.on("ListRuns", run_service_pb2.ListRunsResponse(runs=runs))
    assert "COMPLETED" in invoke("run", "list", "prices", "--status", "completed").stdout
    request = optaic.calls("ListRuns")[0].request
    assert (request.instance_id, list(request.statuses)) == (ID, [run_pb2.RUN_STATUS_COMPLETED])
    assert len(json.loads(invoke("run", "list", "--limit", "1", "-o", "json").stdout)) == 1


def test_staleness_is_explained(optaic: FakeServices) -> None:
    flow = flow_pb2.FlowRef(instance_id=ID, flow_kind=flow_pb2.FLOW_KIND_REFRESH)
    cause = lineage_pb2.Cause(
        kind=lineage_pb2.CAUSE_KIND_UPSTREAM_MOVED, origin_name="sp500", from_version=1, to_version=2
    )
    path = [lineage_pb2.PathStep(instance_name=name) for name in ("sp500", "momentum", "prices")]
    answer = lineage_service_pb2.ExplainStalenessResponse(
        flow_state=lineage_pb2.FlowState(flow=flow, instance_name="prices", status=flow_pb2.STATUS_STALE),
        explanations=[lineage_pb2.StalenessExplanation(cause=cause, path=path)],
    )
    optaic.on("ExplainStaleness", answer)
    shown = invoke("lineage", "explain", "prices").stdout
    assert "prices/refresh  STALE" in shown
    assert "sp500: moved from version 1 to 2" in shown
    assert "sp500 -> momentum -> prices" in shown
    plain = json.loads(invoke("lineage", "explain", "prices", "-o", "json").stdout)
    assert plain["explanations"][0]["cause"]["to_version"] == "2"


def test_the_error_without_a_stack_names_the_remedy() -> None:
    assert "optaic dev up" in invoke("instance", "list", status=7).stderr


def test_dev_status_without_a_stack_reports_it() -> None:
    report = json.loads(invoke("dev", "status", "-o", "json", status=7).stdout)
    assert report["phase"] != "ready"
    assert "nothing was running" in invoke("dev", "down").stdout
    told = invoke("dev", "status", status=7).stdout
    assert "the stack is not running; `optaic dev up` starts it" in told


def test_a_command_names_the_service_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound and not listening: nothing answers there
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("OPTAIC_INSTANCE_ADDRESS", address)
        error = invoke("instance", "list", status=7).stderr
    assert f"instance-service at {address} does not answer" in error
    assert "optaic dev up" in error
    assert "OPTAIC_INSTANCE_ADDRESS" in error


def test_revisions_are_compared(optaic: FakeServices) -> None:
    change = instance_service_pb2.FieldChange(
        path="labels.team", to_value=struct_pb2.Value(string_value="alpha")
    )
    optaic.on("DiffInstanceRevisions", instance_service_pb2.DiffInstanceRevisionsResponse(changes=[change]))
    shown = invoke("instance", "diff", "prices", "1").stdout
    assert "labels.team" in shown
    assert '"alpha"' in shown
    assert json.loads(invoke("instance", "diff", "prices", "1", "2", "-o", "json").stdout) == [
        {"path": "labels.team", "to_value": "alpha"}
    ]


def test_an_instance_is_deleted_with_all_that_reads_it(optaic: FakeServices) -> None:
    optaic.on(
        "DeleteInstance", instance_pb2.Instance(name="prices", state=instance_pb2.INSTANCE_STATE_DELETING)
    )
    shown = invoke(
        "instance", "delete", "prices", "--cascade", "--yes", "--reason", "old", "--etag", "e"
    ).stdout
    assert "prices  DELETING" in shown
    request = optaic.calls("DeleteInstance")[0].request
    assert (request.cascade, request.validate_only, request.reason) == (True, False, "old")
    assert request.etag == "e"


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_scheduled_runs_are_stopped_and_started(optaic: FakeServices, verb: str) -> None:
    method = f"{verb.capitalize()}Instance"
    optaic.on(method, instance_pb2.Instance(name="prices", state=instance_pb2.INSTANCE_STATE_PAUSED))
    flags = ("--etag", "e", "--reason", "holidays")
    assert "prices  PAUSED" in invoke("instance", verb, "prices", *flags).stdout
    assert json.loads(invoke("instance", verb, ID, "-o", "json").stdout)["name"] == "prices"
    request = optaic.calls(method)[0].request
    assert (request.instance_id, request.etag, request.reason) == (ID, "e", "holidays")


def test_revisions_are_listed_with_the_numbers_that_diff_takes(optaic: FakeServices) -> None:
    revision = instance_pb2.InstanceRevision(
        instance=instance_pb2.Instance(revision=7), author="ann", reason="moved"
    )
    answer = instance_service_pb2.ListInstanceRevisionsResponse(revisions=[revision])
    optaic.on("ListInstanceRevisions", answer)
    shown = invoke("instance", "revisions", "prices").stdout
    assert all(word in shown for word in ("7", "ann", "moved"))
    (plain,) = json.loads(invoke("instance", "revisions", "prices", "-o", "json").stdout)
    assert plain["instance"]["revision"] == "7"


def test_a_model_version_is_promoted_and_promotions_are_listed(optaic: FakeServices) -> None:
    champion = spec_pb2.ModelPromotion(model_version="4", author="ann", reason="better")
    champion.metrics["rmse"] = 0.5
    model = instance_pb2.Instance(name="prices", model=spec_pb2.ModelSpec(champion=champion))
    optaic.on("PromoteModelVersion", model)
    flags = ("--etag", "e", "--reason", "better", "--dry-run")
    tried = invoke("instance", "promote-model", "prices", "4", *flags)
    assert "could have the champion 4" in tried.stdout
    assert tried.stderr == "dry run: nothing was changed\n"
    (call,) = optaic.calls("PromoteModelVersion")
    assert call.request == instance_service_pb2.PromoteModelVersionRequest(
        instance_id=ID,
        model_version="4",
        etag="e",
        reason="better",
        validate_only=True,
        request_id=call.request.request_id,
    )
    answer = instance_service_pb2.ListModelPromotionsResponse(promotions=[champion])
    optaic.on("ListModelPromotions", answer)
    shown = invoke("instance", "promotions", "prices").stdout
    assert all(word in shown for word in ("4", "ann", "rmse=0.5", "better"))
    (plain,) = json.loads(invoke("instance", "promotions", "prices", "-o", "json").stdout)
    assert plain["model_version"] == "4"
    done = invoke("instance", "promote-model", "prices", "4")
    assert "has the champion 4" in done.stdout
    assert done.stderr == ""


def test_a_champion_is_removed(optaic: FakeServices) -> None:
    optaic.on("RemoveChampion", instance_pb2.Instance(name="prices", model=spec_pb2.ModelSpec()))
    tried = invoke("instance", "remove-champion", "prices", "--reason", "worse", "--dry-run")
    assert "could be without a champion" in tried.stdout
    assert tried.stderr == "dry run: nothing was changed\n"
    (call,) = optaic.calls("RemoveChampion")
    assert (call.request.instance_id, call.request.reason) == (ID, "worse")
    assert "has no champion" in invoke("instance", "remove-champion", "prices").stdout
    removal = spec_pb2.ModelPromotion(author="ann", reason="worse")
    optaic.on("ListModelPromotions", instance_service_pb2.ListModelPromotionsResponse(promotions=[removal]))
    assert "NONE" in invoke("instance", "promotions", "prices").stdout


def test_a_dataset_is_promoted(optaic: FakeServices) -> None:
    signal = instance_pb2.Instance(name="prices", kind=instance_pb2.INSTANCE_KIND_SIGNAL)
    optaic.on("PromoteDataset", signal)
    flags = (
        "--min-value",
        "-3",
        "--nan-policy",
        "fail",
        "--index-column",
        "date",
        "--dry-run",
        "--reason",
        "good",
    )
    tried = invoke("instance", "promote", "prices", *flags)
    assert "could become a signal" in tried.stdout
    assert tried.stderr == "dry run: nothing was changed\n"
    (call,) = optaic.calls("PromoteDataset")
    assert call.request == instance_service_pb2.PromoteDatasetRequest(
        instance_id=ID,
        contract=spec_pb2.SignalContract(
            min_value=-3,
            neutral_value=0,
            nan_policy=spec_pb2.SignalContract.NAN_POLICY_FAIL,
            bounds_policy=spec_pb2.SignalContract.BOUNDS_POLICY_REJECT,
            index_columns=["date"],
        ),
        request_id=call.request.request_id,
        reason="good",
        validate_only=True,
    )
    invoke("instance", "promote", "prices", "--nan-policy", "perhaps", status=2)
