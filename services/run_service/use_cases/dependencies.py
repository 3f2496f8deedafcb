"""What every use case works with; wiring is the composition root's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from run_service.config import Settings
from run_service.peers_adapter import Peers
from run_service.use_cases.watching import Watches
from servicekit.clock import Clock
from servicekit.database import Database
from servicekit.ids import IdSource


def _nobody() -> None:
    """Wake nobody: the loops look by themselves."""


@dataclass
class Dependencies:
    """Handed to each use case first."""

    settings: Settings
    database: Database
    peers: Peers
    watches: Watches
    clock: Clock
    ids: IdSource
    wake_dispatcher: Callable[[], None] = _nobody
    wake_ender: Callable[[], None] = _nobody
