"""The job's record as `summary.json`; reads, decides nothing."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from demo.stage import Stage, Tools
from optaic.client import word
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_pb2
from optaic.status.v1 import status_pb2


def _seconds(begin: Timestamp, end: Timestamp) -> float:
    return round((end.ToNanoseconds() - begin.ToNanoseconds()) / 1e9, 3)


def _describe_run(name: str, run: run_pb2.Run) -> dict[str, Any]:
    times = MessageToDict(run, preserving_proto_field_name=True)
    return {
        "run_id": run.run_id,
        "instance": name,
        "kind": word(run, "kind"),
        "status": word(run, "status"),
        "run_number": run.run_number,
        "orchestrator_run_id": run.orchestrator_run_id,
        "submit_time": times["submit_time"],
        "start_time": times["start_time"],
        "end_time": times["end_time"],
        "seconds": {
            "submitted_to_started": _seconds(run.submit_time, run.start_time),
            "started_to_completed": _seconds(run.start_time, run.end_time),
        },
        "input_versions": {pin.instance_name: pin.version for pin in run.input_versions},
        "metrics": MessageToDict(run.metrics),
        "artifacts": dict(run.artifacts),
        "output_digest": run.output_version.digest,
        "sha256": {file.name: file.sha256 for file in run.artifact_manifest},
    }


async def describe_runs(job: Stage) -> list[dict[str, Any]]:
    """Return a description of every run of the job, with the digests of what it has written."""
    return [_describe_run(name, await job.client.runs.get(run.run_id)) for name, run in job.runs]


async def describe_instances(job: Stage) -> list[dict[str, Any]]:
    """Return a description of every instance of the job: its kind, its counterparts, and the state of its flows."""
    return [
        _describe_instance(instance, await job.client.status.get(instance.instance_id))
        for instance in job.instances.values()
    ]


def _describe_instance(instance: instance_pb2.Instance, status: status_pb2.InstanceStatus) -> dict[str, Any]:
    components = instance.signal.dataset if instance.HasField("signal") else instance.dataset
    definition = components.pipeline if components.HasField("pipeline") else instance
    words = {flow.flow_kind: word(flow, "status") for flow in status.flows}
    described = {
        "kind": word(instance, "kind"),
        "name": instance.name,
        "id": instance.instance_id,
        "state": word(instance, "state"),
        "definition": None
        if instance.HasField("backtest")
        else {"name": definition.definition_name, "version": definition.definition_version},
        "flows": [
            {
                "kind": word(flow, "flow_kind"),
                "prefect_deployment_id": flow.prefect_deployment_id,
                "status": words.get(flow.flow_kind, ""),
            }
            for flow in instance.flows
        ],
    }
    if instance.HasField("model"):
        described["mlflow_experiment_id"] = instance.model.mlflow_experiment_id
        described["evidently_project_id"] = instance.model.evidently_project_id
    if components.monitoring_enabled:
        described["evidently_project_id"] = components.evidently_project_id
    return described


async def describe_versions(tools: Tools, servers: dict[str, str]) -> dict[str, str]:
    """Return the versions of the servers and of the installed packages."""
    async with tools.prefect() as prefect, tools.mlflow() as mlflow:
        answers = (await prefect.get("/admin/version"), await mlflow.get("/version"))
    for answer in answers:
        answer.raise_for_status()
    return {
        "optaic": version("optaic"),
        **servers,
        "prefect": str(answers[0].json()),
        "mlflow": answers[1].text.strip(),
    }


def describe_job(
    job: Stage,
    instances: list[dict[str, Any]],
    runs: list[dict[str, Any]],
    backtest: run_pb2.Run,
    versions: dict[str, str],
    figure: Path,
) -> dict[str, Any]:
    """Describe the whole job: its steps, instances, runs and events; above all the backtest of the signal."""
    statuses = {name: job.observed.statuses[instance.instance_id] for name, instance in job.instances.items()}
    return {
        "versions": versions,
        "instances": instances,
        "instance_ids": {name: instance.instance_id for name, instance in job.instances.items()},
        "runs": runs,
        "refreshes": [
            {
                "refresh_id": refresh.refresh_id,
                "status": word(refresh, "status"),
                "flows": [
                    {"instance": flow.instance_name, "status": word(flow, "status"), "run_id": flow.run_id}
                    for flow in flows
                ],
            }
            for refresh, flows in job.refreshes
        ],
        "statuses": statuses,
        "metrics": MessageToDict(backtest.metrics),
        "events": dict(sorted(job.observed.events.items())),
        "artifacts": {**backtest.artifacts, "equity_curve_picture": figure.absolute().as_uri()},
        "findings": job.notes,
        "steps": [{"title": step.title, "seconds": round(step.seconds, 3)} for step in job.steps],
        "seconds": round(sum(step.seconds for step in job.steps), 3),
    }


def write_summary(summary: dict[str, Any], path: Path) -> None:
    """Write it where people look for it, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    part.replace(path)
