"""The ports: what instance-service needs of outside systems, without the names or types of any tool."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from optaic.rules.schedules import Timing


@dataclass(frozen=True)
class Deployment:
    """A flow's deployment as the orchestrator should have it; equal deployments behave alike."""

    name: str
    tags: tuple[str, ...]
    parameters: tuple[tuple[str, str], ...]
    timings: tuple[Timing, ...] = ()
    is_paused: bool = False


@dataclass(frozen=True)
class Experiment:
    """A model's experiment as the tracking server should have it, with the version that is the model's champion."""

    name: str  # it is the model's name in the registry too
    title: str
    champion: str = ""
    installation_id: str = ""


@dataclass(frozen=True)
class MonitoringProject:
    """An instance's project as the monitoring workspace should have it."""

    name: str
    title: str
    installation_id: str = ""


@dataclass(frozen=True)
class ModelVersion:
    """A model version in the registry: whether it can be used, and the run that made it."""

    is_ready: bool
    run_id: str
    metrics: Mapping[str, float]
    training_run_id: str = ""  # the id of our run that made it, as the registry's run names it


@dataclass(frozen=True)
class Ensured:
    """The outcome of a batch: the ids of what now exists, and the reasons of refusals, both by name."""

    ids: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)


class OutsideUnavailableError(Exception):
    """An outside system does not answer or is not set up yet; `reason` is the CamelCase reason of a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Counterpart(Protocol):
    """Something that an outside system should hold for an instance; its name contains the instance's id.

    It carries the id of its installation too: other installations that use the same system leave it alone.
    """

    @property
    def name(self) -> str:
        """Return its name, which is deterministic and unique."""
        ...


T = TypeVar("T", bound=Counterpart)


class Counterparts(Protocol[T]):
    """All counterparts of one kind that an outside system holds for this service; every call may be repeated."""

    async def ping(self) -> None:
        """Check that the system answers.

        Raises:
            OutsideUnavailableError: The system does not answer.
        """
        ...

    async def ensure(self, desired: Sequence[T]) -> Ensured:
        """Create what is missing and repair what differs; change nothing else.

        Raises:
            OutsideUnavailableError: It does not answer.
        """
        ...

    async def delete(self, names: Sequence[str]) -> dict[str, str]:
        """Remove or archive these names, if they exist; return the reasons of refusals by name. All others are gone.

        Raises:
            OutsideUnavailableError: It does not answer.
        """
        ...

    def pages(self, installation_id: str) -> AsyncIterator[Sequence[T]]:
        """Yield everything that the system holds for an installation, in bounded pages; without the installation's id it is not found.

        Raises:
            OutsideUnavailableError: It does not answer.
        """
        ...


Projects = Counterparts[MonitoringProject]


class Deployments(Counterparts[Deployment], Protocol):
    """The orchestrator's deployments and the runs that it plans for them."""

    async def planned(self, names: Sequence[str], after: dt.datetime) -> set[str]:
        """Return those deployments for which a run is planned after a given time.

        Raises:
            OutsideUnavailableError: It does not answer.
        """
        ...


class Experiments(Counterparts[Experiment], Protocol):
    """The tracking server's experiments and its model registry."""

    async def find_version(self, name: str, version: str) -> ModelVersion | None:
        """Return a model's version in the registry, or None if there is none.

        Raises:
            OutsideUnavailableError: It does not answer.
        """
        ...
