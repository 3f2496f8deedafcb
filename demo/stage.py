"""The part that all chapters of the job share: its steps, its runs, and what is seen of them; no chapter is known here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from demo.observer import Observed
from optaic.client import AsyncClient, RunHandle
from optaic.instance.v1 import instance_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.run.v1 import refresh_pb2, run_pb2


class StepFailedError(Exception):
    """A step did not give what it promises."""


def expect(condition: bool, promise: str) -> None:
    """Raise StepFailedError if a condition does not hold.

    Raises:
        StepFailedError: it is broken.
    """
    if not condition:
        raise StepFailedError(f"expected {promise}")


@asynccontextmanager
async def within(seconds: float, promise: str) -> AsyncIterator[None]:
    """Let a block take some seconds at most.

    Raises:
        StepFailedError: it took longer.
    """
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise StepFailedError(f"expected {promise} within {seconds:.0f} s") from None


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
class Stage:
    """A running stack, and what the job has done on it so far."""

    client: AsyncClient
    observed: Observed
    tools: Tools
    on_change: Callable[[], None]
    steps: list[Step] = field(default_factory=list)
    instances: dict[str, instance_pb2.Instance] = field(default_factory=dict)
    """By name."""
    runs: list[tuple[str, run_pb2.Run]] = field(default_factory=list)
    refreshes: list[tuple[refresh_pb2.Refresh, Sequence[refresh_pb2.RefreshFlow]]] = field(
        default_factory=list
    )
    """Each with its flows, level by level."""
    tree: Sequence[Sequence[str]] = ()
    """The lines of the refresh that is under way."""
    notes: list[str] = field(default_factory=list)
    """What each step found worth saying."""

    @property
    def names(self) -> dict[str, str]:
        """The names of the instances by id."""
        return {instance.instance_id: name for name, instance in self.instances.items()}

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

    async def execute(self, name: str, flow: str = "", then: str | None = "READY") -> RunHandle:
        """Run a flow of an instance, its own if none is named, and see the instance's status go RUNNING, then on.

        Args:
            name: of the instance.
            flow: for example `training`.
            then: the status afterwards; an instance with several flows is READY when all of them are. None: the flow does
                not count in the status.
        """
        instance_id = self.instances[name].instance_id
        # A watch may tell late of an instance that was just created.
        await self.observed.until(lambda: bool(self.observed.words(instance_id)), f"a status of {name}")
        seen_before = len(self.observed.history)
        handle = await self.client.runs.submit(self.instances[name], flow_kind=flow or 0)
        run = await handle.wait(timeout=90)
        self.runs.append((name, run))
        what = f"the {flow} of {name}" if flow else f"the run of {name}"
        expect(
            run.status == run_pb2.RUN_STATUS_COMPLETED,
            f"{what} to complete: {run.error.type} {run.error.message}",
        )
        if then is not None:
            await self.until_words(instance_id, seen_before, then)
            words = self.observed.words(instance_id, seen_before)
            expect(words == ["RUNNING", then], f"{name} to go RUNNING, {then}; seen {words}")
        async with self.tools.prefect() as prefect:
            answer = await prefect.get(f"/flow_runs/{run.orchestrator_run_id}")
            expect(answer.status_code == httpx.codes.OK, f"{what} to be a Prefect flow run")
        return handle

    async def until_words(self, instance_id: str, since: int, last: str, seconds: float = 15) -> None:
        """Wait until the watch has delivered a status word."""
        await self.observed.until(
            lambda: self.observed.words(instance_id, since)[-1:] == [last],
            f"{self.names[instance_id]} {last}",
            seconds,
        )

    async def explain(self, name: str) -> list[tuple[lineage_pb2.Cause, list[str]]]:
        """Return the causes of an instance's staleness, each with its path by names."""
        answer = await self.client.lineage.explain(self.instances[name])
        return [
            (explanation.cause, [step.instance_name for step in explanation.path])
            for explanation in answer.explanations
        ]

    def expect_ready(self) -> None:
        """Check that the watch has shown every instance READY.

        Raises:
            StepFailedError: one has another status.
        """
        for name, instance in self.instances.items():
            status = self.observed.statuses[instance.instance_id]
            expect(status == "READY", f"{name} READY at the end, it is {status}")
