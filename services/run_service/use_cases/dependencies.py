"""The dependencies that every use case receives; `app` makes them once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from optaic.run.v1.run_report_service_pb2 import DispatchedRun
from run_service.config import Settings
from run_service.peers_adapter import Peers
from run_service.use_cases.hints import Hints
from run_service.use_cases.log_tails import LogTails
from run_service.use_cases.room import Room
from run_service.use_cases.watching import Watches
from servicekit.clock import Clock
from servicekit.database import Database
from servicekit.ids import IdSource
from servicekit.signing import Signer


def _wake_nothing() -> None:
    """Do nothing: the default where no loop is to be woken."""


@dataclass
class Dependencies:
    """The database, the clock, the source of ids, the signer, the settings, the other services, watches, logs, room and hints."""

    database: Database
    clock: Clock
    ids: IdSource
    signer: Signer
    settings: Settings
    peers: Peers
    watches: Watches
    tails: LogTails
    room: Room
    hints: Hints[DispatchedRun] = field(default_factory=Hints)
    refresh_hints: Hints[None] = field(default_factory=Hints)
    wake_dispatcher: Callable[[], None] = _wake_nothing
    wake_ender: Callable[[], None] = _wake_nothing
    wake_ticker: Callable[[], None] = _wake_nothing
    wake_refresher: Callable[[], None] = _wake_nothing
    wake_follower: Callable[[], None] = _wake_nothing
