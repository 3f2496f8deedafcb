"""Probe the sources of the tenant whose interval has passed; user code runs in another process."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

import grpc
import structlog

from optaic.definition.v1 import definition_service_pb2, definition_service_pb2_grpc
from optaic.instance.v1 import instance_service_pb2, instance_service_pb2_grpc, probe_service_pb2_grpc
from optaic.instance.v1 import probe_service_pb2 as api
from optaic.rules.kinds import TIMEZONE
from optaic.rules.limits import longest_text
from optaic.rules.probes import LONGEST
from servicekit import client, context
from servicekit.errors import DomainError
from servicekit.ids import new_id
from servicekit.status import from_rpc_error
from worker.channels import connect
from worker.config import Settings
from worker.confining import confine
from worker.failures import Failure, describe_error
from worker.isolation import Isolation, StartGuardian
from worker.recipe_reading import read_component
from worker.recipe_reading.components import find_dataset
from worker.reports import persist
from worker.run_access import access_of
from worker.run_output import OutputLimits
from worker.source_probe import SourceProbe

_PATIENCE_SECONDS = 30.0
_LONGEST_PROBLEM = longest_text(api.FinishProbeRequest, "problem")
_log = structlog.get_logger(__name__)


async def probe_sources(settings: Settings, start: StartGuardian, stop: asyncio.Event) -> None:
    """Probe what is due, at intervals, until `stop` is set."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(settings.probe_poll_seconds):
                await stop.wait()
        if stop.is_set():
            return
        try:
            await probe_due(settings, start)
        except Exception as error:  # noqa: BLE001 - no memory, no process: it is tried again
            _log.warning("sources not probed", error=repr(error))


async def probe_due(settings: Settings, start: StartGuardian) -> int:
    """Probe all of the tenant's sources that are due, a few at once; return how many there were."""
    count = 0
    async with connect(settings, settings.instance_address) as channel:
        prober = _Prober(settings, start, channel)
        while claimed := await prober.claim():
            async with asyncio.TaskGroup() as group:
                for each in claimed:
                    group.create_task(prober.probe(each))
            count += len(claimed)
    return count


class _Prober:
    """The probes of the worker's tenant."""

    def __init__(self, settings: Settings, start: StartGuardian, channel: client.Channel) -> None:
        self._settings = settings
        self._start = start
        # At run time there is one stub class for both ways to call.
        self._probes = cast(
            "probe_service_pb2_grpc.ProbeServiceAsyncStub",
            probe_service_pb2_grpc.ProbeServiceStub(cast("Any", channel)),
        )
        self._instances = cast(
            "instance_service_pb2_grpc.InstanceServiceAsyncStub",
            instance_service_pb2_grpc.InstanceServiceStub(cast("Any", channel)),
        )
        self._definitions = cast(
            "definition_service_pb2_grpc.DefinitionServiceAsyncStub",
            definition_service_pb2_grpc.DefinitionServiceStub(cast("Any", channel)),
        )

    def _context(self) -> context.RequestContext:
        return context.RequestContext(self._settings.tenant_id, "worker", new_id(), context.new_traceparent())

    async def claim(self) -> list[api.Probe]:
        """Return sources that are due."""
        request = api.ClaimProbesRequest(most=self._settings.probes_at_once)
        with context.bind(self._context()):
            try:
                return list((await self._probes.ClaimProbes(request)).probes)
            except grpc.aio.AioRpcError as error:
                problem = repr(from_rpc_error(error))
        _log.warning("sources not probed", tenant_id=self._settings.tenant_id, error=problem)
        return []

    async def probe(self, claimed: api.Probe) -> None:
        """Probe one source, and report what came of it."""
        with context.bind(self._context()):
            report = api.FinishProbeRequest(probe=claimed)
            answer = await self._answer(claimed)
            if isinstance(answer, Failure):
                report.problem = f"{answer.type}: {answer.message}"[:_LONGEST_PROBLEM]
                _log.warning("source not probed", instance_id=claimed.instance_id, problem=report.problem)
            else:
                report.source_token = answer
            try:
                await persist(lambda: self._probes.FinishProbe(report), _PATIENCE_SECONDS)
            except (DomainError, grpc.aio.AioRpcError) as error:  # it is due again after the lease
                _log.warning("probe not reported", instance_id=claimed.instance_id, error=repr(error))

    async def _answer(self, claimed: api.Probe) -> str | Failure:
        """Have a child ask the pipeline; return the token, or why there is none."""
        settings = self._settings
        limits = OutputLimits(
            f"{settings.run_output_folder}/{claimed.instance_id}.probe.log",
            settings.run_output_bytes,
            settings.run_output_runs,
        )
        try:
            async with asyncio.timeout(LONGEST.total_seconds()):
                task = await self._describe(claimed.instance_id)
                confinement = await confine(task, settings.tenant_id, settings)
                async with Isolation(self._start, limits, confinement, settings.bounds) as child:
                    answer = await child.compute(task, lambda _: None)
        except TimeoutError:
            return Failure("Timeout", f"the probe took longer than {LONGEST.total_seconds():.0f} s", "")
        except Exception as error:  # noqa: BLE001 - every failure must be reported on the probe
            return describe_error(error)
        return answer if isinstance(answer, Failure) else answer.output_version.source_token

    async def _describe(self, instance_id: str) -> SourceProbe:
        request = instance_service_pb2.GetInstanceRequest(instance_id=instance_id)
        dataset = find_dataset(await self._instances.GetInstance(request))
        assert dataset is not None  # nothing else is probed
        given = dataset.pipeline
        version = await self._definitions.GetDefinitionVersion(
            definition_service_pb2.GetDefinitionVersionRequest(
                definition_version_id=given.definition_version_id
            )
        )
        pipeline = read_component(version, given.config)
        sources = await asyncio.to_thread(access_of, [pipeline], self._settings.tenant_id, self._settings)
        return SourceProbe(pipeline, dataset.timezone or TIMEZONE, self._settings.log_level, sources)
