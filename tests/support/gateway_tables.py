"""Runs that have written tables, and reads of them through a gateway."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.plugins import Store
from optaic.run.v1 import run_pb2
from support.gateway import RunningGateway
from support.identities import caller
from support.run_service import TENANT, RunningRunService

READ_BY = "worker.builtin.simple_accessor:SimpleAccessor"


def services_of(service: RunningRunService) -> dict[str, str]:
    """Return the addresses of a run-service and of the instance-service beside it."""
    instance = service.peers["instance_address"]
    return {
        **dict.fromkeys(("lineage", "status"), "127.0.0.1:1"),
        "run": service.address,
        "instance": instance,
    }


async def complete_table(
    service: RunningRunService,
    root: Path,
    store: Store,
    table: pl.DataFrame,
    *,
    instance: instance_pb2.Instance | None = None,
    code_ref: str = "",
    **artifacts: bytes,
) -> run_pb2.Run:
    """Complete a run that has written a version of a dataset, and files."""
    instance = instance or service.instances.add()
    kind = type(store)
    definitions = service.instances.definitions
    keeps = definitions.add("store", code_ref or f"{kind.__module__}:{kind.__qualname__}")
    instance.dataset.store.definition_version_id = keeps.definition_version_id
    reads = definitions.add("accessor", READ_BY)
    instance.dataset.accessor.definition_version_id = reads.definition_version_id
    run = await service.submit(instance)
    started = await service.start(run.run_id)
    flow = root / TENANT / run.instance_id / "refresh"
    stored = await asyncio.to_thread(store.write, table, None, str(flow / "data"))
    folder = flow / "runs" / run.run_id
    folder.mkdir(parents=True, exist_ok=True)
    manifest = []
    for name, content in artifacts.items():
        (folder / name).write_bytes(content)
        entry = run_pb2.Artifact(name=name, uri=str(folder / name), size_bytes=len(content))
        entry.sha256, entry.media_type = hashlib.sha256(content).hexdigest(), "application/octet-stream"
        manifest.append(entry)
    return await service.complete(
        run.run_id,
        started.fencing_token,
        output_version=flow_pb2.VersionRef(
            uri=stored.uri, physical_version=stored.physical_version, digest=stored.digest
        ),
        outputs_uri=f"{folder}/",
        artifacts={name: str(folder / name) for name in artifacts},
        artifact_manifest=manifest,
    )


async def get_rows(
    gateway: RunningGateway,
    path: str,
    role: str = "viewer",
    tenant: str = TENANT,
    accept: str = "application/json",
    **parameters: Any,
) -> httpx.Response:
    """Read rows or statistics."""
    headers = {**dict(caller(role, tenant)), "accept": accept}
    return await gateway.client.get(path, params=parameters, headers=headers)


def reason(answer: httpx.Response) -> tuple[int, Any, Any]:
    """Return the status, the reason and the domain of a refusal."""
    info = answer.json()["details"][0]["debug"]
    return answer.status_code, info["reason"], info["domain"]
