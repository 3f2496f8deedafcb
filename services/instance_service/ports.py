"""What this service needs of an orchestrator; no tool's name or type belongs here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

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
class Ensured:
    """What came of a batch: ids by name, and why others were refused, by name."""

    ids: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)


class OrchestratorUnavailableError(Exception):
    """The orchestrator does not answer, or is not set up yet; `reason` is CamelCase, for a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Deployments(Protocol):
    """The orchestrator's deployments of this system; every call may be repeated."""

    async def ping(self) -> None:
        """Return where it answers.

        Raises:
            OrchestratorUnavailableError: It does not.
        """
        ...

    async def ensure(self, desired: Sequence[Deployment]) -> Ensured:
        """Create what is missing and repair what differs; what is as desired is left alone.

        Raises:
            OrchestratorUnavailableError: It does not answer.
        """
        ...

    async def delete(self, names: Sequence[str]) -> None:
        """Remove deployments; what is not there is fine.

        Raises:
            OrchestratorUnavailableError: It does not answer.
        """
        ...

    def pages(self) -> AsyncIterator[Sequence[Deployment]]:
        """Yield all deployments of this system as they are, in bounded pages.

        Raises:
            OrchestratorUnavailableError: It does not answer.
        """
        ...
