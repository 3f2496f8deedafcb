"""Remove the data of deleted instances after their grace period; user code runs in another process.

As a program it looks once and ends: for installations whose runs are executed by Prefect's own worker.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc
import structlog

from optaic.definition.v1 import definition_service_pb2, definition_service_pb2_grpc
from optaic.instance.v1 import data_removal_service_pb2 as api
from optaic.instance.v1 import data_removal_service_pb2_grpc
from optaic.rules.data_removals import LONGEST
from optaic.rules.limits import longest_text
from servicekit import client, context
from servicekit import logging as service_logging
from servicekit.errors import DomainError
from servicekit.ids import new_id
from servicekit.status import from_rpc_error
from worker.channels import connect
from worker.config import Settings
from worker.confining import confine
from worker.data_removal import Removal, check_place, remove_rest
from worker.failures import Failure, describe_error
from worker.isolation import Isolation, StartGuardian, start_guardian
from worker.recipe_reading import read_component
from worker.reports import persist
from worker.run_output import OutputLimits

_PATIENCE_SECONDS = 60.0
_LONGEST_PROBLEM = longest_text(api.FinishDataRemovalRequest, "problem")
_log = structlog.get_logger(__name__)


async def sweep(settings: Settings, start: StartGuardian = start_guardian) -> int:
    """Remove all of the tenant's data that is due; return how much was, whatever came of it."""
    count = 0
    async with connect(settings, settings.instance_address) as channel:
        while await _remove_next(settings, start, channel):
            count += 1
    return count


async def _remove_next(settings: Settings, start: StartGuardian, channel: client.Channel) -> bool:
    """Remove the data that has waited longest; return whether there was any."""
    request = context.RequestContext(settings.tenant_id, "worker", new_id(), context.new_traceparent())
    with context.bind(request):
        try:
            return await _Sweeper(settings, start, channel).remove_next()
        except grpc.aio.AioRpcError as error:
            problem = repr(from_rpc_error(error))
        except DomainError as error:
            problem = repr(error)
    _log.warning("data of deleted instances not looked for", tenant_id=settings.tenant_id, error=problem)
    return False


class _Sweeper:
    """The removals of the worker's tenant."""

    def __init__(self, settings: Settings, start: StartGuardian, channel: client.Channel) -> None:
        self._settings = settings
        self._start = start
        # At run time there is one stub class for both ways to call.
        self._removals = cast(
            "data_removal_service_pb2_grpc.DataRemovalServiceAsyncStub",
            data_removal_service_pb2_grpc.DataRemovalServiceStub(cast("Any", channel)),
        )
        self._definitions = cast(
            "definition_service_pb2_grpc.DefinitionServiceAsyncStub",
            definition_service_pb2_grpc.DefinitionServiceStub(cast("Any", channel)),
        )

    async def remove_next(self) -> bool:
        """Remove the data that has waited longest; return whether there was any."""
        answer = await self._removals.ClaimDataRemoval(api.ClaimDataRemovalRequest())
        if not answer.HasField("data_removal"):
            return False
        removal = answer.data_removal
        problem = await self._remove(removal)
        if problem:
            _log.warning(
                "data not removed", instance_id=removal.instance_id, name=removal.name, problem=problem
            )
        else:
            _log.info("data removed", instance_id=removal.instance_id, name=removal.name)
        report = api.FinishDataRemovalRequest(
            instance_id=removal.instance_id, problem=problem[:_LONGEST_PROBLEM]
        )
        try:
            await persist(lambda: self._removals.FinishDataRemoval(report), _PATIENCE_SECONDS)
        except DomainError as error:
            if error.reason != "DATA_REMOVAL_NOT_FOUND":  # another worker has done it in the meantime
                raise
        return True

    async def _remove(self, removal: api.DataRemoval) -> str:
        """Have a child remove the data; return why it could not."""
        settings = self._settings
        limits = OutputLimits(
            f"{settings.run_output_folder}/{removal.instance_id}.log",
            settings.run_output_bytes,
            settings.run_output_runs,
        )
        try:
            task = await self._describe(removal)
            async with asyncio.timeout(LONGEST.total_seconds()):
                await asyncio.to_thread(check_place, task)
                confinement = await confine(task, self._settings.tenant_id, settings)
                async with Isolation(self._start, limits, confinement, settings.bounds) as child:
                    answer = await child.compute(task, lambda _: None)
                if not isinstance(answer, Failure):
                    await asyncio.to_thread(remove_rest, task)
        except TimeoutError:
            return f"the removal took longer than {LONGEST.total_seconds():.0f} s; the next attempt removes the rest"
        except Exception as error:  # noqa: BLE001 - every failure must be reported on the removal
            answer = describe_error(error)
        return f"{answer.type}: {answer.message}" if isinstance(answer, Failure) else ""

    async def _describe(self, removal: api.DataRemoval) -> Removal:
        stores = []
        for used in removal.stores:
            request = definition_service_pb2.GetDefinitionVersionRequest(
                definition_version_id=used.definition_version_id
            )
            version = await self._definitions.GetDefinitionVersion(request)
            stores.append(read_component(version, used.config))
        return Removal(
            self._settings.data_root,
            self._settings.tenant_id,
            removal.instance_id,
            tuple(stores),
            removal.has_output,
            self._settings.log_level,
            await asyncio.to_thread(lambda: self._settings.storage),
        )


def main() -> None:
    """Remove all that is due, in this process."""
    settings = Settings()
    service_logging.configure(settings.log_level, "worker")
    asyncio.run(sweep(settings))


if __name__ == "__main__":
    main()
