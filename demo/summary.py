"""The job's record as `summary.json`; reads, decides nothing."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from demo.job import Job
from optaic.client import word
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_pb2


def _seconds(begin: Timestamp, end: Timestamp) -> float:
    return round((end.ToNanoseconds() - begin.ToNanoseconds()) / 1e9, 3)


def _describe_run(name: str, run: run_pb2.Run) -> dict[str, Any]:
    times = MessageToDict(run, preserving_proto_field_name=True)
    return {
        "run_id": run.run_id,
        "instance": name,
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
        "artifacts": dict(run.artifacts),
    }


def _describe_instance(instance: instance_pb2.Instance, status: str) -> dict[str, Any]:
    components = instance.signal.dataset if instance.HasField("signal") else instance.dataset
    pipeline = components.pipeline
    return {
        "kind": word(instance, "kind"),
        "name": instance.name,
        "id": instance.instance_id,
        "state": word(instance, "state"),
        "definition": None
        if instance.HasField("backtest")
        else {"name": pipeline.definition_name, "version": pipeline.definition_version},
        "flows": [
            {
                "kind": word(flow, "flow_kind"),
                "prefect_deployment_id": flow.prefect_deployment_id,
                "status": status,
            }
            for flow in instance.flows
        ],
    }


async def describe_versions(prefect_api_url: str, servers: dict[str, str]) -> dict[str, str]:
    """Versions of all that took part: the servers as they say themselves, and ours."""
    async with httpx.AsyncClient(base_url=prefect_api_url, timeout=10) as prefect:
        prefect_version = (await prefect.get("/admin/version")).json()
    return {"optaic": version("optaic"), **servers, "prefect": str(prefect_version)}


def describe_job(job: Job, metrics: dict[str, Any], versions: dict[str, str], figure: Path) -> dict[str, Any]:
    """Everything the job has to show for itself."""
    statuses = {name: job.observed.statuses[instance.instance_id] for name, instance in job.instances.items()}
    return {
        "versions": versions,
        "instances": [_describe_instance(each, statuses[name]) for name, each in job.instances.items()],
        "instance_ids": {name: instance.instance_id for name, instance in job.instances.items()},
        "runs": [_describe_run(name, run) for name, run in job.runs],
        "statuses": statuses,
        "metrics": metrics,
        "events": dict(sorted(job.observed.events.items())),
        "artifacts": {**job.runs[-1][1].artifacts, "equity_curve_picture": figure.absolute().as_uri()},
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
