"""Ask MLflow's registry what it has; no run waits for it longer than for one call."""

from __future__ import annotations

import asyncio

import structlog

from worker.config import Settings
from worker.telemetry.debts import RefusedError, UnreachableError
from worker.telemetry.mlflow_adapter import MlflowDeliverer

_log = structlog.get_logger(__name__)


async def has_version(settings: Settings, name: str, version: str) -> bool | None:
    """Return whether a registered model has a version; None if MLflow does not say."""
    mlflow = MlflowDeliverer(settings)
    try:
        async with asyncio.timeout(settings.mlflow_timeout_seconds):
            return await mlflow.has_version(name, version)
    except (UnreachableError, RefusedError, TimeoutError) as error:
        _log.warning("registry not asked", model=name, version=version, error=repr(error))
        return None
    finally:
        await mlflow.close()
