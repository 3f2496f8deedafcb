"""Record which version of a model is the champion, or that none is; the reconciler then sets it in the registry.

The registry is only read here. The decision is one transaction, and the reconciler derives the registry's alias from
it, even if a reply is lost or the alias is edited by hand.
"""

from __future__ import annotations

import math

from instance_service.domain import errors
from instance_service.ports import Experiments, OutsideUnavailableError
from instance_service.resources.conversion import timestamp
from instance_service.resources.instances.drafts import draft_instance
from instance_service.resources.instances.locking import check_etag, check_not_deleting, lock
from instance_service.resources.instances.revisions import Revision, note_revision, write_revisions
from instance_service.store import promotions
from instance_service.use_cases.dependencies import Dependencies
from instance_service.use_cases.instances.reading import get_instance
from instance_service.use_cases.instances.waiting import same_revision, when_settled
from instance_service.use_cases.mutation import mutate
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.instance_service_pb2 import (
    GetInstanceRequest,
    PromoteModelVersionRequest,
    RemoveChampionRequest,
)
from optaic.instance.v1.spec_pb2 import ModelPromotion
from optaic.rules.counterparts import counterpart_name
from servicekit import idempotency
from servicekit.context import RequestContext
from servicekit.database import Connection

_METHOD = "PromoteModelVersion"
_Request = PromoteModelVersionRequest | RemoveChampionRequest


async def promote_model_version(
    deps: Dependencies,
    context: RequestContext,
    request: PromoteModelVersionRequest,
    experiments: Experiments,
) -> Instance:
    """Make a model version the champion, then wait briefly until the registry shows it.

    Raises:
        NotFoundError: The instance does not exist, or the version does not exist, is not ready or has no metrics.
        AbortedError: The etag is stale.
        FailedPreconditionError: The instance is being deleted.
        InvalidArgumentError: The instance is not a model.
        UnavailableError: The registry does not answer; nothing was changed.
    """
    tenant_id = context.tenant_id
    stored = await idempotency.first_answer(
        deps.database, tenant_id, _METHOD, request.request_id, idempotency.payload_hash(request)
    )
    if stored is not None:  # answer even if the registry is unavailable now
        answered = Instance.FromString(stored)
        return await same_revision(deps, tenant_id, answered) or answered
    current = await get_instance(deps, tenant_id, GetInstanceRequest(instance_id=request.instance_id))
    _check(current, request)
    promotion = await _find_version(experiments, tenant_id, current, request.model_version)
    promotion.author, promotion.reason = context.actor, request.reason
    instance = await _decide(deps, context, request, promotion)
    return instance if request.validate_only else await when_settled(deps, context, instance)


async def remove_champion(
    deps: Dependencies, context: RequestContext, request: RemoveChampionRequest
) -> Instance:
    """Leave a model without a champion, then wait briefly until the registry shows it.

    Raises:
        NotFoundError: The instance does not exist.
        AbortedError: The etag is stale.
        FailedPreconditionError: The instance is being deleted.
        InvalidArgumentError: The instance is not a model.
    """
    removal = ModelPromotion(author=context.actor, reason=request.reason)
    instance = await _decide(deps, context, request, removal)
    return instance if request.validate_only else await when_settled(deps, context, instance)


async def _decide(
    deps: Dependencies,
    context: RequestContext,
    request: _Request,
    promotion: ModelPromotion,
) -> Instance:
    """Write the decision; if the version is already the champion, no revision is made."""
    tenant_id = context.tenant_id

    async def decide(connection: Connection) -> Instance:
        current = await lock(connection, tenant_id, request.instance_id)
        _check(current, request)
        if current.model.champion.model_version == promotion.model_version:
            return current
        promotion.create_time.CopyFrom(timestamp(deps.clock.now()))
        desired = Instance()
        desired.CopyFrom(current)
        if promotion.model_version:
            desired.model.champion.CopyFrom(promotion)
            desired.model.mlflow_registered_model_name = counterpart_name(tenant_id, current.instance_id)
        else:
            desired.model.ClearField("champion")
        draft = await draft_instance(deps, connection, tenant_id, desired, current)
        revision = Revision(current, draft, request.reason)
        await write_revisions(deps, connection, tenant_id, context.actor, [revision])
        note_revision(revision)
        made = draft.instance
        await promotions.insert_promotion(
            connection, tenant_id, made.instance_id, made.revision, promotion.SerializeToString()
        )
        return made

    return await mutate(deps, tenant_id, request, Instance, decide)


def _check(instance: Instance, request: _Request) -> None:
    if instance.WhichOneof("spec") != "model":
        raise errors.unsupported_kind(f"{instance.name} is not a model; only models have versions to promote")
    check_etag(instance, request.etag)
    check_not_deleting(instance)


async def _find_version(
    experiments: Experiments, tenant_id: str, instance: Instance, version: str
) -> ModelPromotion:
    name = counterpart_name(tenant_id, instance.instance_id)
    try:
        found = await experiments.find_version(name, version)
    except OutsideUnavailableError as error:
        raise errors.dependency_unavailable(error.message) from error
    problem = ""
    if found is None:
        problem = "does not exist"
    elif not found.is_ready:
        problem = "is not ready"
    elif not found.metrics:
        problem = "has no metrics to judge it by; log at least one"
    if found is None or problem:
        raise errors.model_version_not_found(version, name, problem)
    promotion = ModelPromotion(
        model_version=version, run_id=found.run_id, training_run_id=found.training_run_id
    )
    promotion.metrics.update({key: value for key, value in found.metrics.items() if math.isfinite(value)})
    return promotion
