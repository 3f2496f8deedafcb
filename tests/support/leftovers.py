"""A tenant's data with leftovers, in a folder or in an object store, and a sweep of it; the services are stand-ins."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import polars as pl

from optaic import storage
from optaic.common.v1 import flow_pb2
from optaic.definition.v1 import definition_pb2
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from servicekit.ids import new_id
from support.fake_services import FakeServices, fake_services, refuse
from worker.config import Settings
from worker.leftovers import sweeping
from worker.locations import FlowLocation

TENANT = "default"
RUNNING, COMPLETED = run_pb2.RUN_STATUS_RUNNING, run_pb2.RUN_STATUS_COMPLETED
FAILED, CANCELLED = run_pb2.RUN_STATUS_FAILED, run_pb2.RUN_STATUS_CANCELLED
PART = f"part-00000-{'0' * 8}-0000-0000-0000-{'0' * 12}-c000.parquet"


def unknown_run() -> str:
    """Return the id of a run that there never was; it is older than all that are."""
    return f"01900000-0000-7000-8000-{uuid.uuid4().hex[:12]}"


def draft(name: str) -> str:
    """Return a name under which a file is written before it is renamed."""
    return f"{uuid.uuid4()}-{name}"


def days(count: int, close: float = 1.0) -> pl.DataFrame:
    """Return a small table."""
    dates = [dt.date(2024, 1, day + 1) for day in range(count)]
    return pl.DataFrame({"date": dates, "entity": ["a"] * count, "close": [close] * count})


@dataclass
class TenantData:
    """What there is, and what run-service and instance-service know."""

    root: str
    folder: Path
    services: FakeServices
    runs: dict[str, list[run_service_pb2.RunOutputs]] = field(default_factory=dict)  # by instance
    stores: dict[str, list[str]] = field(default_factory=dict)  # code of each revision's store, by instance
    asked: Callable[[], None] = lambda: None  # is called when run-service is asked

    def add_instance(self, *stores: str, version: str = "") -> str:
        """Add an instance with one completed run, which keeps a version if one is given."""
        instance_id = new_id()
        self.stores[instance_id] = list(stores or ("worker.builtin.delta_store:DeltaStore",))
        self.runs[instance_id] = []
        self.add_run(instance_id, COMPLETED, version=version)
        return instance_id

    def add_run(
        self,
        instance_id: str,
        status: Any,
        *paths: str,
        flow_kind: Any = flow_pb2.FLOW_KIND_REFRESH,
        version: str = "",
    ) -> str:
        """Add a run that keeps these."""
        run = run_service_pb2.RunOutputs(
            run_id=new_id(), status=status, flow_kind=flow_kind, paths=paths, physical_version=version
        )
        self.runs[instance_id].append(run)
        return run.run_id

    def put(self, instance_id: str, *paths: str) -> None:
        """Write files below an instance's folder."""
        for path in paths:
            storage.write(f"{self.root}/{TENANT}/{instance_id}/{path}", b"12345")

    def flow(self, instance_id: str, flow_kind: str = "refresh") -> FlowLocation:
        """Return the places of a flow."""
        return FlowLocation(self.root, TENANT, instance_id, flow_kind)

    def list(self, instance_id: str = "") -> set[str]:
        """Return what there is below an instance's folder, or below the tenant's."""
        folder = f"{self.root}/{TENANT}/{instance_id}".rstrip("/")
        return {each.path for each in storage.list_files(folder) if not each.path.endswith(".clock")}

    def settings(self, **changes: Any) -> Settings:
        """Return the settings of the worker, with the access to an object store that this process has now."""
        access = storage.installed() or storage.Access()
        return Settings(
            instance_address=self.services.address,
            run_address=self.services.address,
            executor_token="secret",
            data_root=self.root,
            run_output_folder=str(self.folder / "output"),
            start_patience_seconds=5,
            **{
                "s3_endpoint": access.endpoint,
                "s3_access_key_id": access.access_key_id,
                "s3_secret_access_key": access.secret_access_key,
                "s3_timeout_seconds": access.timeout_seconds,
                "s3_patience_seconds": access.patience_seconds,
                **changes,
            },
        )

    async def sweep(self, **given: Any) -> sweeping.Swept:
        """Sweep once, as `sweep_at_once` does."""
        (swept,) = await self.sweep_at_once(1, **given)
        return swept

    async def sweep_at_once(
        self,
        count: int,
        *,
        is_removing: bool = True,
        margin: dt.timedelta = dt.timedelta(minutes=-1),
        settings: Settings | None = None,
        **given: Any,
    ) -> Sequence[sweeping.Swept]:
        """Sweep several times at once; by default all that there is counts as older than a day."""
        settings = settings or self.settings()
        with mock.patch.object(sweeping, "MARGIN", margin):
            return await asyncio.gather(
                *(sweeping.sweep_leftovers(settings, is_removing=is_removing, **given) for _ in range(count))
            )


@contextlib.contextmanager
def tenant_data(root: str, folder: Path) -> Iterator[TenantData]:
    """Begin without data."""
    with fake_services() as services:
        data = TenantData(root, folder, services)

        def list_outputs(request: Any, _: Any) -> run_service_pb2.ListRunOutputsResponse:
            data.asked()
            runs = data.runs.get(request.instance_id, [])
            place = int(request.page_token or 0)
            more = str(place + 2) if len(runs) > place + 2 else ""
            return run_service_pb2.ListRunOutputsResponse(
                run_outputs=runs[place : place + 2], next_page_token=more
            )

        def get_instance(request: Any, context: grpc.ServicerContext) -> instance_pb2.Instance:
            stores = data.stores.get(request.instance_id, [])
            if not stores:
                refuse(context, grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND", "it is deleted")
            revision = request.revision or len(stores)
            found = instance_pb2.Instance(instance_id=request.instance_id, revision=revision)
            found.dataset.store.definition_version_id = stores[revision - 1]
            return found

        def get_version(request: Any, _: Any) -> definition_pb2.DefinitionVersion:
            return definition_pb2.DefinitionVersion(code_ref=request.definition_version_id)

        services.on("ListRunOutputs", list_outputs)
        services.on("GetInstance", get_instance)
        services.on("GetDefinitionVersion", get_version)
        yield data
