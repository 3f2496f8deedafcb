"""Run the steps of the main job and check each; only the public client and Prefect's own API are used."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from demo.observer import Observed
from optaic.client import AsyncClient, RunHandle, word
from optaic.errors import UpstreamNotReadyError
from optaic.instance.v1 import instance_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.run.v1 import run_pb2

EXPRESSION = "ZSCORE(REF(close, 21) / REF(close, 252) - 1)"
FIRST_AS_OF, SECOND_AS_OF = "2021-12-31", "2022-12-28"
DEFINITIONS = ("sp500_prices", "expression", "delta", "simple")


class StepFailedError(Exception):
    """A step did not give what it promises."""


def expect(condition: bool, promise: str) -> None:
    """Raise StepFailedError if a condition does not hold.

    Raises:
        StepFailedError: it is broken.
    """
    if not condition:
        raise StepFailedError(f"expected {promise}")


@dataclass
class Step:
    """One step as it went."""

    title: str
    seconds: float = 0.0
    is_done: bool = False


@dataclass(frozen=True)
class Tools:
    """The addresses and logins of the tools that instances are paired with."""

    prefect_api_url: str
    mlflow_url: str
    evidently_workspace: Path
    prefect_login: tuple[str, str] | None = None
    mlflow_login: tuple[str, str] | None = None

    def prefect(self) -> httpx.AsyncClient:
        """Return a client of Prefect's API."""
        return httpx.AsyncClient(base_url=self.prefect_api_url, timeout=10, auth=self.prefect_login)

    def mlflow(self) -> httpx.AsyncClient:
        """Return a client of MLflow."""
        return httpx.AsyncClient(base_url=self.mlflow_url, timeout=10, auth=self.mlflow_login)


@dataclass
class Job:
    """The main job over a running stack; `run` does it all."""

    client: AsyncClient
    observed: Observed
    tools: Tools
    on_change: Callable[[], None]
    steps: list[Step] = field(default_factory=list)
    instances: dict[str, instance_pb2.Instance] = field(default_factory=dict)
    """Those of the main job, by name."""
    others: dict[str, instance_pb2.Instance] = field(default_factory=dict)
    """One of each other kind, by name."""
    runs: list[tuple[str, run_pb2.Run]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What each step found worth saying."""

    @property
    def names(self) -> dict[str, str]:
        """The names of the instances by id."""
        return {instance.instance_id: name for name, instance in self.instances.items()}

    async def run(self) -> RunHandle:
        """Do every step in order.

        Returns:
            The last backtest.

        Raises:
            StepFailedError: a step did not give what it promises.
        """
        async with self.step("Wait until the built-in definitions are published"):
            await self.find_definitions()
        async with self.step("Create prices, signal and backtest"):
            await self.create_instances()
        async with self.step("Each flow has its Prefect deployment; nothing has run yet"):
            await self.check_pairing()
        async with self.step("The backtest is refused before its inputs are ready"):
            await self.try_backtest_too_early()
        for name in ("sp500_prices", "momentum_12_1", "momentum_backtest"):
            async with self.step(f"Run {name}"):
                await self.execute(name)
        async with self.step(f"Extend prices to {SECOND_AS_OF}: everything is stale at once"):
            await self.move_prices_on()
        async with self.step(
            "Refresh prices: they are at version 2; signal and backtest stay stale and name the cause"
        ):
            await self.refresh_prices_again()
        async with self.step("Run momentum_12_1 again"):
            await self.execute("momentum_12_1")
        async with self.step("Run momentum_backtest again: all three are READY"):
            last = await self.execute("momentum_backtest")
            for name, instance in self.instances.items():
                status = self.observed.statuses[instance.instance_id]
                expect(status == "READY", f"{name} READY at the end, it is {status}")
        async with self.step(
            "Create one instance of every other kind, with its objects in Prefect, MLflow and Evidently"
        ):
            await self.create_every_kind()
        return last

    @asynccontextmanager
    async def step(self, title: str) -> AsyncIterator[None]:
        """Time one step and show it."""
        step = Step(title)
        self.steps.append(step)
        self.on_change()
        begun = time.perf_counter()
        try:
            yield
            step.is_done = True
        finally:
            step.seconds = time.perf_counter() - begun
            self.on_change()

    async def find_definitions(self) -> None:
        """Check that every definition that the job needs is published."""
        published = {definition.name for definition in await self.client.definitions.list()}
        missing = set(DEFINITIONS) - published
        expect(not missing, f"definitions {sorted(missing)} to be published at start-up")

    async def create_instances(self) -> None:
        """Create a project with prices, a signal on them and a backtest of the signal."""
        project = await self.client.projects.create("demo")
        prices = await self.client.instances.create(
            project=project.project_id,
            name="sp500_prices",
            dataset={"pipeline": {"definition_name": "sp500_prices", "config": {"as_of": FIRST_AS_OF}}},
        )
        signal = await self.client.instances.create(
            project=project.project_id,
            name="momentum_12_1",
            signal={
                "dataset": {
                    "pipeline": {"definition_name": "expression", "config": {"expression": EXPRESSION}}
                },
                "contract": {"min_value": -3, "max_value": 3, "bounds_policy": "BOUNDS_POLICY_WINSORIZE"},
            },
            upstreams={"input": prices.instance_id},
        )
        backtest = await self.client.instances.create(
            project=project.project_id,
            name="momentum_backtest",
            backtest={
                "assets": {"benchmark": "equal_weight"},
                "signals": {"primary": signal.instance_id},
                "date_range": {"start": "2015-01-02"},
                "config": {"rebalance_frequency": "monthly", "transaction_costs": 0.001, "top_n": 5},
            },
            upstreams={"prices": prices.instance_id},
        )
        self.instances = {instance.name: instance for instance in (prices, signal, backtest)}

    async def check_pairing(self) -> None:
        """Check each instance's flow, each flow's deployment in Prefect's own API, and that nothing has run yet."""
        async with self.tools.prefect() as prefect:
            for name in self.instances:
                instance = await self.client.instances.wait_until_active(self.instances[name].instance_id)
                self.instances[name] = instance
                expect(len(instance.flows) == 1, f"{name} to have one flow")
                answer = await prefect.get(f"/deployments/{instance.flows[0].prefect_deployment_id}")
                expect(answer.status_code == httpx.codes.OK, f"{name} to have a deployment in Prefect")
                expect(
                    answer.json()["name"] == instance.flows[0].prefect_deployment_name,
                    f"the deployment of {name} to have its deterministic name",
                )
                status = word(await self.client.status.get(instance.instance_id), "status")
                expect(
                    status == "NOT_INITIALIZED",
                    f"{name} NOT_INITIALIZED before its first run, it is {status}",
                )

    async def try_backtest_too_early(self) -> None:
        """Check that admission refuses the backtest and names both flows that are not ready."""
        try:
            await self.client.runs.submit(self.instances["momentum_backtest"])
        except UpstreamNotReadyError as refused:
            subjects = {blocking.subject for blocking in refused.blocking}
            expect(
                subjects == {"sp500_prices/refresh", "momentum_12_1/refresh"},
                f"both upstreams to be named, got {sorted(subjects)}",
            )
            self.notes += [
                f"refused: {blocking.subject} {blocking.description}" for blocking in refused.blocking
            ]
        else:
            raise StepFailedError("expected the backtest to be refused")

    async def execute(self, name: str) -> RunHandle:
        """Run an instance's flow and see its status go RUNNING, then READY."""
        instance_id = self.instances[name].instance_id
        seen_before = len(self.observed.history)
        handle = await self.client.runs.submit(self.instances[name])
        run = await handle.wait(timeout=90)
        self.runs.append((name, run))
        expect(
            run.status == run_pb2.RUN_STATUS_COMPLETED,
            f"the run of {name} to complete: {run.error.type} {run.error.message}",
        )
        await self.until_words(instance_id, seen_before, "READY")
        words = self.observed.words(instance_id, seen_before)
        expect(words == ["RUNNING", "READY"], f"{name} to go RUNNING, READY; seen {words}")
        async with self.tools.prefect() as prefect:
            answer = await prefect.get(f"/flow_runs/{run.orchestrator_run_id}")
            expect(answer.status_code == httpx.codes.OK, f"the run of {name} to be a Prefect flow run")
        return handle

    async def until_words(self, instance_id: str, since: int, last: str) -> None:
        """Wait until the watch has delivered a status word."""
        await self.observed.until(
            lambda: self.observed.words(instance_id, since)[-1:] == [last],
            f"{self.names[instance_id]} {last}",
            15,
        )

    async def move_prices_on(self) -> None:
        """Update the prices; check that all three are stale because of the new configuration."""
        seen_before = len(self.observed.history)
        self.instances["sp500_prices"] = await self.client.instances.update(
            self.instances["sp500_prices"],
            {"dataset": {"pipeline": {"config": {"as_of": SECOND_AS_OF}}}},
            reason="a year of new prices",
        )
        for name, instance in self.instances.items():
            await self.until_words(instance.instance_id, seen_before, "STALE")
            causes = await self.explain(name)
            expect(
                causes != [] and all(cause.kind == lineage_pb2.CAUSE_KIND_OWN_CONFIG for cause, _ in causes),
                f"{name} to be stale for the prices' own configuration, got {causes}",
            )
            expect(
                all(cause.origin_name == "sp500_prices" for cause, _ in causes),
                "the cause to begin in the prices",
            )

    async def refresh_prices_again(self) -> None:
        """Refresh the prices; check that the signal and the backtest stay stale and say why."""
        await self.execute("sp500_prices")
        status = await self.client.status.get(self.instances["sp500_prices"].instance_id)
        moved = (1, status.flows[0].version)
        expect(moved == (1, 2), f"prices to move from version 1 to 2, got {moved}")
        for name in ("momentum_12_1", "momentum_backtest"):
            standing = word(await self.client.status.get(self.instances[name].instance_id), "status")
            expect(standing == "STALE", f"{name} to stay STALE, it is {standing}")
        causes = await self.explain("momentum_backtest")
        for cause, _ in causes:
            expect(
                (cause.kind, cause.origin_name, cause.from_version, cause.to_version)
                == (lineage_pb2.CAUSE_KIND_UPSTREAM_MOVED, "sp500_prices", 1, 2),
                f"the cause to be sp500_prices moving from version 1 to 2, got {cause}",
            )
        paths = {tuple(path) for _, path in causes}
        expect(
            paths
            == {
                ("sp500_prices", "momentum_backtest"),
                ("sp500_prices", "momentum_12_1", "momentum_backtest"),
            },
            f"one shortest path through each affected direct upstream, got {sorted(paths)}",
        )
        self.notes += [
            f"stale: {cause.origin_name} {cause.from_version} → {cause.to_version} via {' → '.join(path)}"
            for cause, path in causes
        ]

    async def explain(self, name: str) -> list[tuple[lineage_pb2.Cause, list[str]]]:
        """Return the causes of an instance's staleness, each with its path by names."""
        answer = await self.client.lineage.explain(self.instances[name])
        return [
            (explanation.cause, [step.instance_name for step in explanation.path])
            for explanation in answer.explanations
        ]

    async def create_every_kind(self) -> None:
        """Create an experiment, a model and an optimizer; check that each is ACTIVE with its ids in outside systems."""
        prices, signal = self.instances["sp500_prices"], self.instances["momentum_12_1"]
        momentum = await self.client.instances.create(
            project=prices.project_id,
            name="momentum_preview",
            experiment={"date_range": {"start": "2020-01-02"}},
            definition_name="MOMENTUM",
            config={"x": "close", "long": 252, "short": 21},
            upstreams={"input": prices},
        )
        model = await self.client.instances.create(
            project=prices.project_id,
            name="next_month",
            model={},
            definition_name="ridge",
            config={
                "features": [{"name": "momentum", "expression": "value"}],
                "target": {"expression": "PCT(close, 21)", "horizon": 21},
            },
            upstreams={"features": signal, "target": prices},
        )
        optimizer = await self.client.instances.create(
            project=prices.project_id,
            name="min_cvar",
            portfolio_optimizer={},
            definition_name="minimum_cvar",
            upstreams={"signal": signal, "covariance": prices},
        )
        for created in (momentum, model, optimizer):
            instance = await self.client.instances.wait_until_active(created.instance_id)
            self.others[instance.name] = instance
        await self.check_handles(self.others[model.name])

    async def check_handles(self, model: instance_pb2.Instance) -> None:
        """Check that Prefect has each flow's deployment, MLflow the model's experiment, and Evidently its project."""
        async with self.tools.prefect() as prefect, self.tools.mlflow() as mlflow:
            for name, instance in self.others.items():
                for flow in instance.flows:
                    answer = await prefect.get(f"/deployments/{flow.prefect_deployment_id}")
                    is_there = answer.is_success
                    expect(is_there, f"{word(flow, 'flow_kind')} of {name} to have a deployment in Prefect")
            asked = {"experiment_id": model.model.mlflow_experiment_id}
            answer = await mlflow.get("/api/2.0/mlflow/experiments/get", params=asked)
            expect(answer.is_success, f"{model.name} to have an experiment in MLflow")
            experiment = answer.json()["experiment"]["name"]
        project = model.model.evidently_project_id
        is_there = (self.tools.evidently_workspace / project).is_dir()
        expect(bool(project) and is_there, f"{model.name} to have a project in Evidently's workspace")
        self.notes.append(f"{model.name}: MLflow experiment {experiment}, Evidently project {project}")
