"""The outside systems of instance-service in memory, which tests can break; the conformance suites hold them to the real."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, Generic

from instance_service.ports import (
    Deployment,
    Ensured,
    Experiment,
    ModelVersion,
    MonitoringProject,
    OutsideUnavailableError,
    T,
)
from servicekit.ids import new_id


class FakeCounterparts(Generic[T]):
    """The port `Counterparts`."""

    tool = ""

    def __init__(self) -> None:
        self.stored: dict[str, tuple[str, T]] = {}
        self.outage: OutsideUnavailableError | None = None
        self.kept: set[str] = set()
        self.writes = 0
        self.calls = 0

    async def ping(self) -> None:
        """Raise the outage, if there is one."""
        if self.outage is not None:
            raise self.outage

    async def ensure(self, desired: Sequence[T]) -> Ensured:
        """Create or repair."""
        self._check()
        ensured = Ensured()
        for one in desired:
            found = self.stored.get(one.name)
            if found is None or found[1] != one:
                self.writes += 1
                self.stored[one.name] = (found[0] if found else self._new_id(one), one)
            ensured.ids[one.name] = self.stored[one.name][0]
        return ensured

    async def delete(self, names: Sequence[str]) -> dict[str, str]:
        """Remove by name, except the objects to be kept."""
        self._check()
        for name in set(names) - self.kept:
            self.stored.pop(name, None)
        return dict.fromkeys(self.kept.intersection(names), "this one is kept")

    async def pages(self, installation_id: str) -> AsyncIterator[Sequence[T]]:
        """Yield everything of an installation in one page."""
        self._check()
        yield [one for _, one in self.stored.values() if installation_id in self._marks(one)]

    def edit(self, name: str, **changes: Any) -> None:
        """Change something behind the service's back."""
        one_id, one = self.stored[name]
        self.stored[name] = (one_id, replace(one, **changes))  # type: ignore[type-var]  # all are dataclasses

    def break_down(self) -> None:
        """Answer nothing any more."""
        self.outage = OutsideUnavailableError(f"{self.tool}Unavailable", f"{self.tool} does not answer")

    def recover(self) -> None:
        """Answer again."""
        self.outage = None

    def _new_id(self, one: T) -> str:
        del one
        return new_id()

    def _marks(self, one: Any) -> Sequence[str]:
        return (one.installation_id,)

    def _check(self) -> None:
        self.calls += 1
        if self.outage is not None:
            raise self.outage


class FakeDeployments(FakeCounterparts[Deployment]):
    """The port `Deployments`."""

    tool = "Prefect"

    def __init__(self) -> None:
        super().__init__()
        self.unplanned: set[str] = set()

    async def planned(self, names: Sequence[str], after: dt.datetime) -> set[str]:
        """Plan everything except the names that a test gives."""
        del after
        self._check()
        return {name for name in names if name in self.stored} - self.unplanned

    def _marks(self, one: Deployment) -> Sequence[str]:
        return [tag.removeprefix("installation:") for tag in one.tags]


class FakeExperiments(FakeCounterparts[Experiment]):
    """The port `Experiments`, with a registry."""

    tool = "Mlflow"

    def __init__(self) -> None:
        super().__init__()
        self.archived: dict[str, str] = {}
        self.versions: dict[tuple[str, str], ModelVersion] = {}

    async def ensure(self, desired: Sequence[Experiment]) -> Ensured:
        """Refuse champions that the registry does not know."""
        self._check()
        known = [one for one in desired if not one.champion or (one.name, one.champion) in self.versions]
        ensured = await super().ensure(known)
        ensured.refusals.update({one.name: "no such version" for one in desired if one not in known})
        return ensured

    async def delete(self, names: Sequence[str]) -> dict[str, str]:
        """Archive."""
        for name in self.stored.keys() & set(names) - self.kept:
            self.archived[name] = self.stored[name][0]
        return await super().delete(names)

    async def find_version(self, name: str, version: str) -> ModelVersion | None:
        """Return a version."""
        self._check()
        return self.versions.get((name, version))

    def _new_id(self, one: Experiment) -> str:
        return self.archived.pop(one.name, None) or str(len(self.stored) + len(self.archived) + 1)


class FakeProjects(FakeCounterparts[MonitoringProject]):
    """The port `Projects`."""

    tool = "Evidently"

    def _new_id(self, one: MonitoringProject) -> str:
        return one.name.rpartition(".")[2]
