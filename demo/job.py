"""The first chapter of the job, and the order of all: prices, a signal and its backtest; each step is checked.

Only the public client and the tools' own APIs are used.
"""

from dataclasses import dataclass
from pathlib import Path

import httpx

from demo.freshness import freshness
from demo.research import research
from demo.stage import Stage, StepFailedError, expect
from optaic.client import RunHandle, word
from optaic.errors import UpstreamNotReadyError
from optaic.lineage.v1 import lineage_pb2

EXPRESSION = "ZSCORE(REF(close, 21) / REF(close, 252) - 1)"
FIRST_AS_OF, SECOND_AS_OF = "2021-12-31", "2022-12-28"
DEFINITIONS = ("sp500_prices", "expression", "delta", "simple")


@dataclass
class Job(Stage):
    """The main job over a running stack; `run` does it all."""

    folder: Path = Path()
    """To which a vendor delivers prices."""

    async def run(self) -> RunHandle:
        """Do every step in order.

        Returns:
            The last backtest of the signal.

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
            self.expect_ready()
        await research(self)
        await freshness(self, self.folder)
        self.expect_ready()
        return last

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
