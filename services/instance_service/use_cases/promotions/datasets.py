"""Promote a dataset to a signal in place: its newest output is checked, and nothing is computed.

The output is recorded as verified for the fingerprint that the contract produces, so lineage-service keeps it fresh.
If a run with the old fingerprint completes in the meantime, that run was not verified and makes the signal stale.
"""

from __future__ import annotations

from collections.abc import Iterable

from instance_service.domain import errors
from instance_service.domain.errors import Blocking
from instance_service.domain.fingerprints import compute_fingerprint, flow_settings
from instance_service.domain.flows import derive_edges
from instance_service.domain.rules import takes
from instance_service.domain.signal_contracts import Breach, find_breaches
from instance_service.resources.definitions.requirements import rules_of
from instance_service.resources.instances.drafts import Draft, draft_instance
from instance_service.resources.instances.flows import LONGEST_CHANGE
from instance_service.resources.instances.locking import check_etag, check_not_deleting, lock
from instance_service.resources.instances.profiles import profile_of
from instance_service.resources.instances.revisions import Revision, note_revision, write_revisions
from instance_service.store import graph, outputs
from instance_service.store.outputs import Output
from instance_service.use_cases.dependencies import Dependencies
from instance_service.use_cases.mutation import mutate
from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH
from optaic.definition.v1.definition_pb2 import DefinitionVersion
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.instance_service_pb2 import PromoteDatasetRequest
from optaic.rules.columns import value_column
from optaic.rules.limits import shorten
from servicekit.context import RequestContext
from servicekit.database import Connection
from servicekit.errors import (
    FieldViolation,
)

_FLOW = "refresh"


async def promote_dataset(
    deps: Dependencies, context: RequestContext, request: PromoteDatasetRequest
) -> Instance:
    """Turn a dataset into a signal by adding a contract that its newest output already satisfies.

    Raises:
        NotFoundError: It does not exist.
        AbortedError: The etag is stale.
        FailedPreconditionError: No output is known, it breaks the contract, or a dependant does not accept a signal.
        InvalidArgumentError: The instance is not a dataset.
    """
    tenant_id = context.tenant_id

    async def promote(connection: Connection) -> Instance:
        current = await lock(connection, tenant_id, request.instance_id)
        if current.WhichOneof("spec") != "dataset":
            raise errors.unsupported_kind(
                f"{current.name} is not a dataset; only datasets can be promoted to signals"
            )
        check_etag(current, request.etag)
        check_not_deleting(current)
        output = await _get_output(connection, tenant_id, current)
        draft = await draft_instance(deps, connection, tenant_id, _as_signal(current, request), current)
        readers = await graph.list_dependants(connection, tenant_id, current.instance_id)
        _refuse(current, _breaches(output, draft), _refusing(readers))
        _verify(current, draft, output)
        revision = Revision(current, draft, request.reason)
        await write_revisions(deps, connection, tenant_id, context.actor, [revision])
        note_revision(revision)
        return draft.instance

    return await mutate(deps, tenant_id, request, Instance, promote)


async def _get_output(connection: Connection, tenant_id: str, instance: Instance) -> Output:
    output = await outputs.get_output(connection, tenant_id, instance.instance_id, _FLOW)
    if output is None:
        raise errors.no_output(instance.name)
    if output.profile is None:
        raise errors.output_not_profiled(instance.name, output.run_number)
    return output


def _as_signal(current: Instance, request: PromoteDatasetRequest) -> Instance:
    desired = Instance()
    desired.CopyFrom(current)
    desired.signal.dataset.CopyFrom(current.dataset)
    desired.signal.contract.CopyFrom(request.contract)
    return desired


def _breaches(output: Output, draft: Draft) -> list[Breach]:
    assert output.profile is not None
    given = draft.instance.signal.dataset.pipeline.config.fields
    column = value_column(given["output"].string_value if "output" in given else "")
    return find_breaches(profile_of(output.profile), draft.settings["contract"], column)


def _refusing(readers: Iterable[tuple[str, bytes, bytes | None]]) -> list[Blocking]:
    """Return the dependants, given as (role, instance, definition version), whose role does not accept a signal."""
    refusing = []
    for role, snapshot, version in readers:
        reader = Instance.FromString(snapshot)
        kind = reader.WhichOneof("spec") or ""
        rules = rules_of(kind, None if version is None else DefinitionVersion.FromString(version))
        if not takes(rules, role, "signal"):
            text = f"reads it in the role {role!r}, which accepts no signal ({kind} {reader.instance_id})"
            refusing.append(Blocking(reader.instance_id, reader.name, text))
    return refusing


def _refuse(instance: Instance, breaches: list[Breach], refusing: list[Blocking]) -> None:
    broken = [
        FieldViolation(one.path, f"{one.column}: {one.description}", "CONTRACT_BROKEN") for one in breaches
    ]
    if not (broken or refusing):
        return
    raise errors.no_signal(instance.name, broken, refusing)


def _verify(current: Instance, draft: Draft, output: Output) -> None:
    """Mark the output as verified for the new fingerprint if it was fresh under the old one."""
    relevant = flow_settings("signal", _FLOW, draft.settings, "")
    without = {name: value for name, value in relevant.items() if name != "contract"}
    edges = derive_edges(current.instance_id, [_FLOW], draft.upstreams)
    (flow,) = (flow for flow in draft.instance.flows if flow.flow_kind == FLOW_KIND_REFRESH)
    if compute_fingerprint(_FLOW, without, edges) == output.compute_fingerprint:
        flow.verified_output.run_number = output.run_number
        flow.verified_output.compute_fingerprint = flow.compute_fingerprint
        return
    # It is stale and stays stale, so the reasons are kept.
    (before,) = (flow.fingerprint_change for flow in current.flows if flow.flow_kind == FLOW_KIND_REFRESH)
    both = "; ".join(filter(None, (before, flow.fingerprint_change)))
    flow.fingerprint_change = shorten(both, LONGEST_CHANGE)
