"""Promotions: of datasets to signals, and of model versions to champions. Generated from optaic.client.promotions by `make client`; do not edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optaic.client import promotions as asynchronous
from optaic.client.references import InstanceLike
from optaic.client.synchronous.loop import Plain
from optaic.instance.v1 import instance_pb2, spec_pb2


class Promotions(Plain[asynchronous.Promotions]):
    """The methods of instances that promote them or what they made."""

    def promote_dataset(
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
        return self._loop.run(
            self._target.promote_dataset(
                instance, contract, etag=etag, reason=reason, validate_only=validate_only
            )
        )

    def promote_model_version(
        self,
        instance: InstanceLike,
        model_version: str | int,
        *,
        etag: str = "",
        reason: str = "",
        validate_only: bool = False,
    ) -> instance_pb2.Instance:
        """Make a version in MLflow's registry the model's champion, which inference reads until another one is promoted."""
        return self._loop.run(
            self._target.promote_model_version(
                instance, model_version, etag=etag, reason=reason, validate_only=validate_only
            )
        )

    def remove_champion(
        self, instance: InstanceLike, *, etag: str = "", reason: str = "", validate_only: bool = False
    ) -> instance_pb2.Instance:
        """Leave a model without a champion: its inference reads the newest training again."""
        return self._loop.run(
            self._target.remove_champion(instance, etag=etag, reason=reason, validate_only=validate_only)
        )

    def model_promotions(self, instance: InstanceLike) -> Sequence[spec_pb2.ModelPromotion]:
        """Return all promotions of a model's versions, newest first; the removal of a champion has no version."""
        return self._loop.run(self._target.model_promotions(instance))
