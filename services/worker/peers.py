"""The services as the worker calls them: over channels that all runs share, and what never changes is read once."""

from __future__ import annotations

import asyncio
import functools
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from optaic.definition.v1 import definition_pb2, definition_service_pb2, definition_service_pb2_grpc
from optaic.instance.v1 import instance_pb2, instance_service_pb2, instance_service_pb2_grpc
from optaic.run.v1 import (
    run_report_service_pb2,
    run_report_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
)
from servicekit import context
from servicekit.ids import new_id
from worker.channels import connect
from worker.config import Settings
from worker.reports import persist

_MOST_INSTANCES = 25  # of one answer: as large as they may be, they are no more than a message takes
_MOST_RUNS = 1000  # of one answer
_MOST_VERSIONS = 256  # that are kept
_MOST_BYTES = 64 * 1024  # of a version that is kept


@asynccontextmanager
async def connect_peers(settings: Settings) -> AsyncIterator[Peers]:
    """Connect to the services until the block ends; calls say for which tenant they are.

    Raises:
        ValueError: A connection would leave this machine without TLS.
        OSError: A file of certificates cannot be read.
    """
    async with (
        connect(settings, settings.run_address) as runs,
        connect(settings, settings.instance_address) as instances,
    ):
        yield Peers(runs, instances, settings.start_patience_seconds)


class Peers:
    """run-service, to report to, and instance-service, to read from; reading is repeated while it is away."""

    def __init__(self, runs: Any, instances: Any, patience: float) -> None:
        # At run time there is one stub class for both ways to call.
        self.runs = cast(
            "run_report_service_pb2_grpc.RunReportServiceAsyncStub",
            run_report_service_pb2_grpc.RunReportServiceStub(runs),
        )
        self._run_reads = cast(
            "run_service_pb2_grpc.RunServiceAsyncStub", run_service_pb2_grpc.RunServiceStub(runs)
        )
        self._instances = cast(
            "instance_service_pb2_grpc.InstanceServiceAsyncStub",
            instance_service_pb2_grpc.InstanceServiceStub(instances),
        )
        self._definitions = cast(
            "definition_service_pb2_grpc.DefinitionServiceAsyncStub",
            definition_service_pb2_grpc.DefinitionServiceStub(instances),
        )
        self._patience = patience
        self._versions: OrderedDict[tuple[str, str], definition_pb2.DefinitionVersion] = OrderedDict()

    async def watch_dispatches(
        self, tenant_id: str
    ) -> AsyncIterator[run_report_service_pb2.DispatchedRun | None]:
        """Yield the flow runs that run-service makes, and None when one may be waiting; until it ends the stream.

        Raises:
            grpc.aio.AioRpcError: run-service is away, or knows no such stream.
        """
        request = run_report_service_pb2.WatchDispatchesRequest()
        with context.bind(context.RequestContext(tenant_id, "worker", new_id(), context.new_traceparent())):
            stream = self.runs.WatchDispatches(request)
        async for hint in stream:
            yield hint.dispatched_run if hint.HasField("dispatched_run") else None

    async def list_run_outputs(self, instance_id: str) -> dict[str, run_service_pb2.RunOutputs]:
        """Return what each run of an instance keeps of its output folder, by run id."""
        request = run_service_pb2.ListRunOutputsRequest(instance_id=instance_id, page_size=_MOST_RUNS)
        found: dict[str, run_service_pb2.RunOutputs] = {}
        while True:
            page = await persist(functools.partial(self._run_reads.ListRunOutputs, request), self._patience)
            found |= {each.run_id: each for each in page.run_outputs}
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def get_instance(self, instance_id: str, revision: int = 0) -> instance_pb2.Instance:
        """Return an instance at a revision; without one, the newest."""
        request = instance_service_pb2.GetInstanceRequest(instance_id=instance_id, revision=revision)
        found: instance_pb2.Instance = await persist(
            lambda: self._instances.GetInstance(request), self._patience
        )
        return found

    async def get_instances(self, revisions: Mapping[str, int]) -> list[instance_pb2.Instance]:
        """Return each at its revision: the newest revisions in one call, each older one in a call of its own."""
        ids = list(revisions)
        found: list[instance_pb2.Instance] = []
        for start in range(0, len(ids), _MOST_INSTANCES):
            some_ids = ids[start : start + _MOST_INSTANCES]
            request = instance_service_pb2.BatchGetInstancesRequest(instance_ids=some_ids)
            read = functools.partial(self._instances.BatchGetInstances, request)
            newest = (await persist(read, self._patience)).instances
            found += await asyncio.gather(
                *(self._at_revision(instance, revisions[instance.instance_id]) for instance in newest)
            )
        return found

    async def _at_revision(self, newest: instance_pb2.Instance, revision: int) -> instance_pb2.Instance:
        if revision in {0, newest.revision}:
            return newest
        return await self.get_instance(newest.instance_id, revision)

    async def get_versions(self, version_ids: Collection[str]) -> dict[str, definition_pb2.DefinitionVersion]:
        """Return definition versions by id. What a run needs of one never changes, so it is read once."""
        found = await asyncio.gather(*(self._get_version(version_id) for version_id in version_ids))
        return dict(zip(version_ids, found, strict=True))

    async def _get_version(self, version_id: str) -> definition_pb2.DefinitionVersion:
        key = (context.current().tenant_id, version_id)
        if (kept := self._versions.get(key)) is not None:
            self._versions.move_to_end(key)
            return kept
        request = definition_service_pb2.GetDefinitionVersionRequest(definition_version_id=version_id)
        found: definition_pb2.DefinitionVersion = await persist(
            lambda: self._definitions.GetDefinitionVersion(request), self._patience
        )
        if found.ByteSize() <= _MOST_BYTES:
            self._versions[key] = found
            if len(self._versions) > _MOST_VERSIONS:
                self._versions.popitem(last=False)
        return found
