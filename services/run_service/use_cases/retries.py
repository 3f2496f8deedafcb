"""The automatic retry of a failed run: a new run with its own admission."""

from __future__ import annotations

import structlog

from run_service.store import queues
from run_service.use_cases.admission import admit, find_flow
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.submission import insert_refused, insert_run, wanted_by_retry
from servicekit import context
from servicekit.context import RequestContext
from servicekit.errors import AlreadyExistsError, FailedPreconditionError, NotFoundError

_ACTOR = "retry"
_log = structlog.get_logger(__name__)


class _SupersededError(Exception):
    """The flow has been run again since, or the retry was made already."""


async def retry_automatically(deps: Dependencies, tenant_id: str, run_id: str) -> None:
    """Submit the run that follows; refused at the gate, it is recorded CANCELLED: nobody waits for an answer.

    Raises:
        UnavailableError: Admission could not be decided; try again.
    """
    request = RequestContext(tenant_id, _ACTOR, deps.ids(), context.new_traceparent(), is_service=True)
    with context.bind(request):
        try:
            await _retry(deps, tenant_id, run_id)
        except (NotFoundError, _SupersededError) as error:
            _log.info("retry dropped", tenant=tenant_id, run_id=run_id, error=repr(error))
            async with deps.database.transaction(tenant_id) as connection:
                await queues.delete_retry(connection, tenant_id, run_id)


async def _retry(deps: Dependencies, tenant_id: str, run_id: str) -> None:
    failed_number, wanted = await wanted_by_retry(deps, tenant_id, run_id, _ACTOR)
    found = await find_flow(deps, tenant_id, wanted.instance_id, wanted.flow_kind)
    try:
        admission = await admit(deps, found, wanted, must_compare=True)
        async with deps.database.transaction(tenant_id) as connection:
            if not await queues.delete_retry(connection, tenant_id, run_id):
                raise _SupersededError
            run = await insert_run(deps, connection, admission)
            if run.run_number != failed_number + 1:
                raise _SupersededError
        deps.wake_dispatcher()
    except (FailedPreconditionError, AlreadyExistsError) as refusal:
        async with deps.database.transaction(tenant_id) as connection:
            if await queues.delete_retry(connection, tenant_id, run_id):
                await insert_refused(deps, connection, found, wanted, refusal)
