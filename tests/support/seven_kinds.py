"""A flow of each kind of run on one stack, and what its runs have published; each flow is made and run when it is first asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from optaic.client import AsyncClient, RunHandle, word
from optaic.instance.v1 import instance_pb2
from optaic.rules.counterparts import RUN_TAG, counterpart_name
from optaic.run.v1 import run_pb2
from support import campaigns
from support.client import connected_client, create_dataset, create_project
from support.holding_gate import HoldingGate
from support.mlflow_api import MlflowApi
from support.mortal_worker import MortalWorker
from support.polling import PATIENCE, eventually
from support.proxy import Proxy

KINDS = ("refresh", "preview", "backtest", "optimize", "training", "inference", "monitoring")
CHOSEN = KINDS if campaigns.IS_FULL else ("refresh", "training")
RETRIED = frozenset({"refresh"})  # its instance has a policy
_OWNERS = dict(zip(KINDS, ("signal", "experiment", "backtest", "optimizer", *["model"] * 3), strict=True))
_BEFORE = {"backtest": "refresh", "optimize": "refresh", "inference": "training", "monitoring": "inference"}
_PRICES = {"symbols": ["AAPL", "AMD", "BAC", "CVX", "GE", "MSFT"], "start": "2018-01-02", "end": "2020-12-31"}
_MODEL = {
    "features": [{"name": "month", "expression": "PCT(close, 21)", "transforms": [{"name": "standardize"}]}],
    "target": {"expression": "PCT(close, 5)", "horizon": 5},
}
_RETRIED = {"manual": {}, "retry_policy": {"max_retries": 1, "delay": 1}}
_WHY = "a test of faults"


@dataclass(frozen=True)
class Published:
    """What a flow offers to others."""

    version: int
    digest: str


class SevenKinds:
    """The flows, as one test sees them."""

    def __init__(
        self, mortal: MortalWorker, client: AsyncClient, mlflow: MlflowApi, gate: HoldingGate, proxy: Proxy
    ) -> None:
        self.mortal, self.client, self.gate, self.proxy = mortal, client, gate, proxy
        self._mlflow = mlflow

    async def prepare(self, kinds: Sequence[str] = KINDS) -> None:
        """Make the flows, and have each completed once, with those before it."""
        await self._make("prices")
        for kind in kinds:
            if kind in _BEFORE:
                await self.prepare([_BEFORE[kind]])
            if f"{kind} has run" not in self.mortal.made:
                self.mortal.made[f"{kind} has run"] = await self._make(_OWNERS[kind])
                await self.complete(kind)

    async def submit(self, kind: str) -> RunHandle:
        """Submit a run, whatever the flows before it do at present."""
        instance = self.instance(kind)
        return await self.client.runs.submit(instance, flow_kind=kind, force=True, force_reason=_WHY)

    async def complete(self, kind: str) -> run_pb2.Run:
        """Run a flow; return its run once it has completed and owes nothing."""
        run: run_pb2.Run = await (await self.submit(kind)).wait(timeout=PATIENCE)
        assert run.status == run_pb2.RUN_STATUS_COMPLETED, run
        return await self.settle(run)

    async def settle(self, run: run_pb2.Run) -> run_pb2.Run:
        """Return a completed run once it owes nothing."""

        async def settled() -> run_pb2.Run | None:
            found = await self.client.runs.get(run.run_id)
            return None if found.telemetry_pending or self.list_owed(run) else found

        found = await eventually(settled, PATIENCE, f"{run.run_id} still owes something")
        assert found is not None
        return found

    def instance(self, kind: str) -> instance_pb2.Instance:
        """Return the instance that has the flow."""
        return self.mortal.made[_OWNERS[kind]]

    async def read_published(self, kind: str) -> Published:
        """Return what the flow offers."""
        flow = await self.client.status.flow(self.instance(kind), kind)
        newest = [
            run
            for run in await self.client.runs.list(self.instance(kind), flow_kind=kind)
            if run.status == run_pb2.RUN_STATUS_COMPLETED
        ]
        return Published(flow.version, newest[0].output_version.digest)

    async def wait_until_ready(self, kind: str) -> Published:
        """Return what the flow offers once it is READY."""

        async def is_ready() -> bool:
            flow = await self.client.status.flow(self.instance(kind), kind)
            return bool(word(flow, "status") == "READY")

        await eventually(is_ready, PATIENCE, f"{kind} does not become READY")
        return await self.read_published(kind)

    def list_owed(self, run: run_pb2.Run) -> list[str]:
        """Return what is in the spool of a run."""
        return [path.name for path in self.mortal.spool.glob(f"{run.run_id}.*")]

    def list_snapshots(self, run: run_pb2.Run) -> list[str]:
        """Return the snapshots of a run in Evidently's workspace, drafts included."""
        folder = self.mortal.evidently / run.instance_id / "snapshots"
        return [
            path.name for path in folder.iterdir() if run.run_id in path.name or path.name.startswith(".")
        ]

    async def list_mlflow_runs(self, run: run_pb2.Run) -> list[Any]:
        """Return the runs that MLflow has of a run."""
        answer = await self._mlflow.call(
            "POST",
            "runs/search",
            experiment_ids=[self.instance("training").model.mlflow_experiment_id],
            filter=f"tags.`{RUN_TAG}` = '{run.run_id}'",
            max_results=50,
        )
        return list(answer.get("runs", []))

    async def list_versions(self, run: run_pb2.Run) -> list[Any]:
        """Return the registered versions that MLflow has of a run."""
        query = {"filter": f"name = '{counterpart_name('default', run.instance_id)}'", "max_results": 1000}
        found = (await self._mlflow.call("GET", "model-versions/search", **query)).get("model_versions", [])
        own = {each["info"]["run_id"] for each in await self.list_mlflow_runs(run)}
        return [each for each in found if each["run_id"] in own]

    async def assert_delivered_once(self, run: run_pb2.Run) -> None:
        """Check that MLflow and Evidently have one of each thing of a completed run, and that it names them."""
        run = await self.settle(run)
        kind = word(run, "flow_kind").lower()
        if kind == "training":
            (found,) = await self.list_mlflow_runs(run)
            (version,) = await self.list_versions(run)
            assert found["info"]["status"] == "FINISHED"
            named = (run.training.mlflow_run_id, run.training.model_version)
            assert named == (found["info"]["run_id"], version["version"])
        if kind == "monitoring":
            assert self.list_snapshots(run) == [f"{run.run_id}.json"]

    async def assert_nothing_published(self, run: run_pb2.Run, before: Published) -> None:
        """Check that a failed run has left nothing that anybody reads, neither here nor outside."""
        run = await self.client.runs.get(run.run_id)
        kind = word(run, "flow_kind").lower()
        assert run.status == run_pb2.RUN_STATUS_FAILED, run
        assert not run.HasField("output_version")
        assert set(run.artifacts) <= {"traceback"}
        assert not run.telemetry_pending
        assert await self.read_published(kind) == before
        told = [each.type for each in await self.client.runs.activities(run.run_id)]
        assert [each for each in told if each.endswith((".completed", ".failed"))] == [
            f"{_noun(told)}.failed"
        ]
        await eventually(lambda: not self.list_owed(run), PATIENCE, "the debt of a failed run stays")
        if kind == "training":
            assert {each["info"]["status"] for each in await self.list_mlflow_runs(run)} <= {"FAILED"}
            assert len(await self.list_mlflow_runs(run)) <= 1
            assert await self.list_versions(run) == []
        if kind == "monitoring":
            assert self.list_snapshots(run) == []

    async def assert_next_run_is_right(self, kind: str, before: Published) -> None:
        """Check that the flow's next run completes, and that it publishes what the one before the fault has."""
        run = await self.complete(kind)
        assert run.output_version.digest == before.digest
        assert await self.wait_until_ready(kind) == before
        await self.assert_delivered_once(run)

    async def _make(self, name: str) -> instance_pb2.Instance:
        made = self.mortal.made
        if name not in made:
            made[name] = await self._create(name)
            if name == "prices":
                run = await (await self.client.runs.submit(made[name])).wait(timeout=PATIENCE)
                assert run.status == run_pb2.RUN_STATUS_COMPLETED, run
        return made[name]

    async def _create(self, name: str) -> instance_pb2.Instance:
        made = self.mortal.made
        if name == "prices":
            project = await create_project(self.client, "kinds")
            return await create_dataset(self.client, project, name, "sp500_prices", _PRICES)
        prices = made["prices"]
        given: dict[str, dict[str, Any]] = {
            "signal": {
                "signal": {
                    "dataset": {
                        "pipeline": {
                            "definition_name": "expression",
                            "config": {"expression": "ZSCORE(PCT(close, 21))"},
                        }
                    },
                    "contract": {
                        "min_value": -9,
                        "max_value": 9,
                        "bounds_policy": "BOUNDS_POLICY_WINSORIZE",
                    },
                },
                "upstreams": {"input": prices},
                "schedule": _RETRIED,
            },
            "experiment": {
                "experiment": {},
                "definition_name": "MOMENTUM",
                "config": {"x": "close", "long": 63, "short": 21},
                "upstreams": {"input": prices, "prices": prices},
            },
            "model": {
                "model": {},
                "definition_name": "ridge",
                "config": _MODEL,
                "upstreams": {"features": prices, "target": prices},
            },
        }
        if name in {"backtest", "optimizer"}:
            signal = await self._make("signal")
            given["backtest"] = {
                "backtest": {"signals": {"primary": signal.instance_id}, "config": {"top_n": 2}},
                "upstreams": {"prices": prices},
            }
            given["optimizer"] = {
                "portfolio_optimizer": {},
                "definition_name": "minimum_cvar",
                "upstreams": {"signal": signal, "covariance": prices},
            }
        created = await self.client.instances.create(project=prices.project_id, name=name, **given[name])
        return await self.client.instances.wait_until_active(created.instance_id, timeout=PATIENCE)


def _noun(told: Sequence[str]) -> str:
    return told[0].partition(".")[0]


@asynccontextmanager
async def seven_kinds(mortal: MortalWorker) -> AsyncIterator[SevenKinds]:
    """Connect a test to the stack, with a gate for the worker and the way to MLflow open."""
    endpoints = mortal.stack.endpoints
    user, _, password = endpoints.mlflow_login.partition(":")
    gate, proxy = HoldingGate(mortal.gate_port), Proxy(endpoints.mlflow)
    proxy.port = mortal.mlflow_port
    async with (
        gate,
        proxy,
        connected_client(mortal.stack) as client,
        httpx.AsyncClient(
            base_url=endpoints.mlflow, auth=(user, password), timeout=30, trust_env=False
        ) as calls,
    ):
        try:
            yield SevenKinds(mortal, client, MlflowApi(calls), gate, proxy)
        finally:
            gate.open()
            proxy.heal()
