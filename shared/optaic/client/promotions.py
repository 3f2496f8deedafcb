"""Promotions: of datasets to signals, and of model versions to champions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optaic.client import messages
from optaic.client.connection import Connection
from optaic.client.definitions import all_pages
from optaic.client.references import InstanceLike, id_of
from optaic.instance.v1 import instance_pb2, spec_pb2
from optaic.instance.v1 import instance_service_pb2 as api
from optaic.instance.v1.instance_service_pb2_grpc import InstanceServiceStub
from optaic.rules.pages import LARGEST_SIZE


class Promotions:
    """The methods of instances that promote them or what they made."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def _call(self, method: str, request: Any, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - the call's deadline, which the service sees too
        return await self._connection.call("instance", InstanceServiceStub, method, request, timeout=timeout)

    async def promote_dataset(
        self,
        instance: InstanceLike,
        contract: Mapping[str, Any] | spec_pb2.SignalContract | None = None,
        *,
        etag: str = "",
        reason: str = "",
        validate_only: bool = False,
    ) -> instance_pb2.Instance:
        """Turn a dataset into a signal in place; its newest output must already satisfy the contract.

        Raises:
            FailedPreconditionError: For example CONTRACT_BROKEN; `violations` has every check that failed, `blocking`
                each dependant that accepts no signal.
        """
        request = api.PromoteDatasetRequest(
            instance_id=id_of(instance), etag=etag, reason=reason, validate_only=validate_only
        )
        messages.fill(request, {"contract": contract or {}})
        answer: instance_pb2.Instance = await self._call("PromoteDataset", request)
        return answer

    async def promote_model_version(
        self,
        instance: InstanceLike,
        model_version: str | int,
        *,
        etag: str = "",
        reason: str = "",
        validate_only: bool = False,
    ) -> instance_pb2.Instance:
        """Make a version in MLflow's registry the model's champion, which inference reads until another one is promoted."""
        request = api.PromoteModelVersionRequest(
            instance_id=id_of(instance),
            model_version=str(model_version),
            etag=etag,
            reason=reason,
            validate_only=validate_only,
        )
        answer: instance_pb2.Instance = await self._call("PromoteModelVersion", request)
        return answer

    async def remove_champion(
        self,
        instance: InstanceLike,
        *,
        etag: str = "",
        reason: str = "",
        validate_only: bool = False,
    ) -> instance_pb2.Instance:
        """Leave a model without a champion: its inference reads the newest training again."""
        request = api.RemoveChampionRequest(
            instance_id=id_of(instance), etag=etag, reason=reason, validate_only=validate_only
        )
        answer: instance_pb2.Instance = await self._call("RemoveChampion", request)
        return answer

    async def model_promotions(self, instance: InstanceLike) -> Sequence[spec_pb2.ModelPromotion]:
        """Return all promotions of a model's versions, newest first; the removal of a champion has no version."""
        request = api.ListModelPromotionsRequest(instance_id=id_of(instance), page_size=LARGEST_SIZE)

        async def page(request: Any) -> Any:
            return await self._call("ListModelPromotions", request)

        return await all_pages(page, request, "promotions")
