"""The procedure of a backtest in documents: left out it stays what it is, and an older backtest has the first."""

from __future__ import annotations

from typing import Any

import pytest

from optaic.apply.execution import read_existing
from optaic.apply.export import export_documents
from support.apply import BACKTEST, HALVED, PRICES, Memory, apply, document, plan


def _backtest(procedure: int | None) -> dict[str, Any]:
    given: Any = BACKTEST["backtest"]
    config = {**given.get("config", {}), **({} if procedure is None else {"procedure": procedure})}
    return {**BACKTEST, "backtest": {**given, **({"config": config} if config else {})}}


def _store(memory: Memory, procedure: int | None) -> None:
    config = memory.instance("backtest").backtest.config
    config.ClearField("procedure")
    if procedure is not None:
        config.procedure = procedure


@pytest.mark.parametrize(
    ("stored", "said", "change"),
    [
        (2, None, None),
        (2, 2, None),
        (2, 1, (2, 1)),
        (1, None, None),
        (None, None, None),
        (None, 1, None),  # what it has anyway
        (None, 2, (1, 2)),
    ],
)
async def test_a_document_keeps_the_procedure_that_it_leaves_out(
    memory: Memory, stored: int | None, said: int | None, change: tuple[int, int] | None
) -> None:
    await apply(memory, document(_backtest(None), HALVED, PRICES))
    _store(memory, stored)
    actions = await plan(memory, document(_backtest(said), HALVED, PRICES))
    found = [(each.path, each.before, each.after) for action in actions for each in action.changes]
    assert found == ([] if change is None else [("backtest.config.procedure", *change)])


@pytest.mark.parametrize("stored", [None, 1, 2])
async def test_an_export_says_the_procedure_and_applying_it_changes_nothing(
    memory: Memory, stored: int | None
) -> None:
    await apply(memory, document(_backtest(None), HALVED, PRICES))
    _store(memory, stored)
    documents = export_documents(await read_existing(memory.client))
    (found,) = [one["backtest"] for one in documents[0]["instances"] if "backtest" in one]
    assert found["config"]["procedure"] == (stored or 1), "a new backtest would get the newest"
    assert await plan(memory, *documents) == []


async def test_a_membership_is_named_like_every_upstream(memory: Memory) -> None:
    given: Any = BACKTEST["backtest"]
    listed = {**PRICES, "name": "members"}
    backtest = {**BACKTEST, "backtest": {**given, "assets": {"membership_id": "members"}}}
    await apply(memory, document(backtest, HALVED, PRICES, listed))
    assets = memory.instance("backtest").backtest.assets
    assert assets.membership_id == memory.instance("members").instance_id
    documents = export_documents(await read_existing(memory.client))
    (found,) = [one["backtest"] for one in documents[0]["instances"] if "backtest" in one]
    assert found["assets"]["membership_id"] == "members"
