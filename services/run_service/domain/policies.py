"""Decide by the overlap and catch-up policies what happens to a scheduled time; docs/schedules.md shows the table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


class Overlap(StrEnum):
    """The policy for a scheduled time while another run of the flow is active."""

    SKIP = "skip"
    QUEUE_ONE = "queue_one"
    CANCEL_PREVIOUS = "cancel_previous"


class CatchUp(StrEnum):
    """The policy for scheduled times whose flow runs start late."""

    LATEST = "latest"
    ALL = "all"
    NONE = "none"


class Policies(NamedTuple):
    """The policies of one schedule."""

    overlap: Overlap = Overlap.SKIP
    catch_up: CatchUp = CatchUp.LATEST


class Situation(StrEnum):
    """The situation of a scheduled time when the policies decide about it, in the words of docs/schedules.md."""

    LATE = "its flow run starts late"
    OTHERS_WAIT = "its flow run starts in time, and others wait"
    RUN_IS_ACTIVE = "its flow run starts in time, and a run is active"
    UPSTREAMS_AWAITED = "its flow run starts, and another one waits for upstream flows"
    LATER_ONES_WAIT = "its turn comes, and later ones wait"
    RUN_IS_ACTIVE_AT_TURN = "its turn comes, and a run is active"


class Action(StrEnum):
    """The action for a scheduled time, in the words of docs/schedules.md."""

    RUN = "is run"
    RUN_AND_CANCEL = "is run, the active run is cancelled"
    RUN_AND_SUPERSEDE = "is run, those that wait are not"
    WAIT = "waits"
    REFUSE_ACTIVE = "is not run: RUN_ACTIVE"
    REFUSE_SKIPPED = "is not run: TICK_SKIPPED"
    REFUSE_SUPERSEDED = "is not run: TICK_SUPERSEDED"
    REFUSE_MISSED = "is not run: TICK_MISSED"


_Row = Mapping[CatchUp, Action]


def _row(latest: Action, all_: Action, none: Action) -> _Row:
    return {CatchUp.LATEST: latest, CatchUp.ALL: all_, CatchUp.NONE: none}


_SUPERSEDE_OR_WAIT = _row(Action.RUN_AND_SUPERSEDE, Action.WAIT, Action.RUN_AND_SUPERSEDE)
TABLE: Mapping[Situation, Mapping[Overlap, _Row]] = {
    Situation.LATE: dict.fromkeys(Overlap, _row(Action.WAIT, Action.WAIT, Action.REFUSE_MISSED)),
    Situation.OTHERS_WAIT: {
        Overlap.SKIP: _SUPERSEDE_OR_WAIT,
        Overlap.QUEUE_ONE: _row(Action.REFUSE_SKIPPED, Action.WAIT, Action.REFUSE_SKIPPED),
        Overlap.CANCEL_PREVIOUS: _SUPERSEDE_OR_WAIT,
    },
    Situation.RUN_IS_ACTIVE: {
        Overlap.SKIP: dict.fromkeys(CatchUp, Action.REFUSE_ACTIVE),
        Overlap.QUEUE_ONE: dict.fromkeys(CatchUp, Action.WAIT),
        Overlap.CANCEL_PREVIOUS: dict.fromkeys(CatchUp, Action.RUN_AND_CANCEL),
    },
    Situation.UPSTREAMS_AWAITED: dict.fromkeys(
        Overlap, _row(Action.REFUSE_SUPERSEDED, Action.WAIT, Action.REFUSE_SUPERSEDED)
    ),
    Situation.LATER_ONES_WAIT: dict.fromkeys(
        Overlap, _row(Action.REFUSE_SUPERSEDED, Action.RUN, Action.REFUSE_SUPERSEDED)
    ),
    Situation.RUN_IS_ACTIVE_AT_TURN: {
        Overlap.SKIP: _row(Action.REFUSE_ACTIVE, Action.WAIT, Action.REFUSE_ACTIVE),
        Overlap.QUEUE_ONE: dict.fromkeys(CatchUp, Action.WAIT),
        Overlap.CANCEL_PREVIOUS: dict.fromkeys(CatchUp, Action.RUN_AND_CANCEL),
    },
}


def decide(situation: Situation, policies: Policies) -> Action:
    """Return what happens to a scheduled time in a situation."""
    return TABLE[situation][policies.overlap][policies.catch_up]
