"""A tenant's data with leftovers, in a folder or in an object store, and a sweep of it; the services are stand-ins."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
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

    def add_instance(self, *stores: str) -> str:
        """Add an instance with one completed run."""
        instance_id = new_id()
        self.stores[instance_id] = list(stores or ("worker.builtin.delta_store:DeltaStore",))
        self.runs[instance_id] = []
        self.add_run(instance_id, COMPLETED)
        return instance_id

    def add_run(
        self, instance_id: str, status: Any, *paths: str, flow_kind: Any = flow_pb2.FLOW_KIND_REFRESH
    ) -> str:
        """Add a run that keeps these."""
        run = run_service_pb2.RunOutputs(run_id=new_id(), status=status, flow_kind=flow_kind, paths=paths)
        self.runs[instance_id].append(run)
        return run.run_id

    def flow(self, instance_id: str, flow_kind: str = "refresh") -> FlowLocation:
        """Return the places of a flow."""
        return FlowLocation(self.root, TENANT, instance_id, flow_kind)

    def list(self, instance_id: str = "") -> set[str]:
        """Return what there is below an instance's folder, or below the tenant's."""
        folder = f"{self.root}/{TENANT}/{instance_id}".rstrip("/")
        return {each.path for each in storage.list_files(folder) if not each.path.endswith(".clock")}

    async def sweep(
        self, *, is_removing: bool = True, margin: dt.timedelta = dt.timedelta(minutes=-1)
    ) -> sweeping.Swept:
        """Sweep; by default all that there is counts as older than a day."""
        settings = Settings(
            instance_address=self.services.address,
            run_address=self.services.address,
            executor_token="secret",
            data_root=self.root,
            run_output_folder=str(self.folder / "output"),
            start_patience_seconds=5,
        )
        with mock.patch.object(sweeping, "MARGIN", margin):
            return await sweeping.sweep_leftovers(settings, is_removing=is_removing)


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
