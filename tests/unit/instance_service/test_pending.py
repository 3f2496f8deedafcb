"""What is filled in before anything is looked up."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from instance_service.resources.instances.pending import prepare
from optaic.instance.v1.instance_pb2 import Instance
from optaic.rules.backtests import NEWEST_PROCEDURE


class _Deps:
    """The clock and the ids that a preparation needs."""

    clock = type("Clock", (), {"now": staticmethod(lambda: dt.datetime(2026, 1, 2, tzinfo=dt.UTC))})()

    @staticmethod
    def ids() -> str:
        return "00000000-0000-7000-8000-000000000001"


def _backtest(procedure: int | None) -> Instance:
    instance = Instance(name="b")
    instance.backtest.config.top_n = 3
    if procedure is not None:
        instance.backtest.config.procedure = procedure
    return instance


@pytest.mark.parametrize(
    ("stored", "given", "expected"),
    [
        (None, None, None),  # a backtest that is older than the choice
        (None, 1, 1),
        (None, 2, 2),
        (1, None, 1),
        (2, None, 2),
        (2, 1, 1),
    ],
)
def test_an_existing_backtest_keeps_its_procedure_even_if_it_has_none(
    stored: int | None, given: int | None, expected: int | None
) -> None:
    deps: Any = _Deps()
    config = prepare(deps, _backtest(given), _backtest(stored)).instance.backtest.config
    assert (config.procedure if config.HasField("procedure") else None) == expected


@pytest.mark.parametrize("given", [None, 1, 2])
def test_a_new_backtest_gets_the_newest_procedure_unless_it_names_one(given: int | None) -> None:
    deps: Any = _Deps()
    config = prepare(deps, _backtest(given)).instance.backtest.config
    assert config.procedure == (given or NEWEST_PROCEDURE)
