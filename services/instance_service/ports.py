"""What this service needs of outside systems; no tool's name or type belongs here."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from instance_service.domain.schedules import Timing


@dataclass(frozen=True)
class Deployment:
    """A flow as the orchestrator should know it; two that are equal behave alike."""

    name: str
    tags: tuple[str, ...]
    parameters: tuple[tuple[str, str], ...]
    timings: tuple[Timing, ...] = ()
    is_paused: bool = False


@dataclass(frozen=True)
class Experiment:
    """A model as the tracking server should know it: where its runs go, and which version is its champion."""

    name: str  # also its name in the registry
    title: str
    champion: str = ""
    installation_id: str = ""


@dataclass(frozen=True)
class MonitoringProject:
    """An instance as the monitoring workspace should know it."""

    name: str
    title: str
    installation_id: str = ""


@dataclass(frozen=True)
class ModelVersion:
    """A version in the registry: whether it can be used, and the run that made it."""

    is_ready: bool
    run_id: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Ensured:
    """What came of a batch: ids by name, and why others were refused, by name."""

    ids: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)


class OutsideUnavailableError(Exception):
    """An outside system does not answer, or is not set up yet; `reason` is CamelCase, for a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Counterpart(Protocol):
    """Something that an outside system should hold; its name says for which instance.

    It also carries the id of its installation: others that use the same system leave it alone.
    """

    @property
    def name(self) -> str:
        """Deterministic and unique."""
        ...


T = TypeVar("T", bound=Counterpart)


class Counterparts(Protocol[T]):
    """All things of one kind that an outside system holds for this service; every call may be repeated."""

    async def ping(self) -> None:
        """Return where it answers.

        Raises:
            OutsideUnavailableError: It does not.
        """
        ...

    async def ensure(self, desired: Sequence[T]) -> Ensured:
        """Create what is missing and repair what differs; what is as desired is left alone.

        Raises:
            OutsideUnavailableError: It does not answer.
        """
        ...

    async def delete(self, names: Sequence[str]) -> dict[str, str]:
        """Remove, or archive; what is not there is fine. Return why some were refused, by name: the others are gone.

        Raises:
            OutsideUnavailableError: It does not answer.
        """
        ...

    def pages(self, installation_id: str) -> AsyncIterator[Sequence[T]]:
        """Yield everything of an installation as it is, in bounded pages; what lost its id is not found.

        Raises:
            OutsideUnavailableError: It does not answer.
        """
        ...


Projects = Counterparts[MonitoringProject]


class Deployments(Counterparts[Deployment], Protocol):
    """The orchestrator's deployments, and what it plans of them."""

    async def planned(self, names: Sequence[str], after: dt.datetime) -> set[str]:
        """Return those of which it has planned a run for a moment after another.

        Raises:
            OutsideUnavailableError: It does not answer.
        """
        ...


class Experiments(Counterparts[Experiment], Protocol):
    """The tracking server's experiments, and what its registry knows."""

    async def find_version(self, name: str, version: str) -> ModelVersion | None:
        """Return a version of a model in the registry.

        Raises:
            OutsideUnavailableError: It does not answer.
        """
        ...
