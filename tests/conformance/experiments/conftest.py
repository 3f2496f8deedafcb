"""The grounds on which the suite runs: the fake, and a real MLflow server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from instance_service.mlflow_adapter import MlflowExperiments
from instance_service.ports import Experiments, ModelVersion
from servicekit.ids import new_id
from support.counterparts import FakeExperiments
from support.mlflow_api import mlflow_api


@dataclass(frozen=True)
class Ground:
    """The port, and a way to do what a training does: register a version with a metric `rmse`."""

    experiments: Experiments
    register: Callable[[str, str], Awaitable[str]]


@pytest.fixture(params=["fake", "mlflow"])
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    """The port, by each of its implementations."""
    if request.param == "fake":
        fake = FakeExperiments()

        async def register(name: str, _experiment_id: str) -> str:
            version = str(1 + sum(key[0] == name for key in fake.versions))
            fake.versions[name, version] = ModelVersion(
                is_ready=True, run_id=new_id().replace("-", ""), metrics={"rmse": 0.5}
            )
            return version

        yield Ground(fake, register)
        return
    adapter = MlflowExperiments(request.getfixturevalue("mlflow_url"), 60)
    try:
        async with mlflow_api(request.getfixturevalue("mlflow_url")) as api:
            yield Ground(adapter, lambda name, one: api.register(name, one, rmse=0.5))
    finally:
        await adapter.close()
