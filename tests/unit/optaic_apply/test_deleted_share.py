"""`max_deleted_share` in documents: left out it is the default, and an older instance keeps none."""

from __future__ import annotations

from typing import Any

import pytest

from optaic.apply.execution import read_existing
from optaic.apply.export import export_documents, unsaid
from support.apply import PRICES, Memory, apply, document, plan


def _prices(share: float | None) -> dict[str, Any]:
    given: Any = PRICES["dataset"]
    dataset: dict[str, Any] = {**given, **({} if share is None else {"max_deleted_share": share})}
    return {**PRICES, "dataset": dataset}


@pytest.mark.parametrize(
    ("stored", "said", "change"),
    [
        (0.5, None, None),
        (0.5, 0.5, None),
        (0.9, None, (0.9, 0.5)),
        (0.9, 0.9, None),
        (0.5, 0.0, (0.5, 0.0)),
        (None, None, None),  # made before there was one: no document changes it by saying nothing
        (None, 0.5, (None, 0.5)),
    ],
)
async def test_a_document_sets_the_deletion_limit_or_leaves_it_unchanged(
    memory: Memory, stored: float | None, said: float | None, change: tuple[Any, Any] | None
) -> None:
    await apply(memory, document(_prices(None)))
    if stored is not None:
        memory.instance("prices").dataset.max_deleted_share = stored
    actions = await plan(memory, document(_prices(said)))
    found = [(each.path, each.before, each.after) for action in actions for each in action.changes]
    assert found == ([] if change is None else [("dataset.max_deleted_share", *change)])


@pytest.mark.parametrize("share", [None, 0.0, 0.5, 0.9])
async def test_applying_an_export_changes_nothing(memory: Memory, share: float | None) -> None:
    await apply(memory, document(_prices(None)))
    if share is not None:
        memory.instance("prices").dataset.max_deleted_share = share
    existing = await read_existing(memory.client)
    documents = export_documents(existing)
    dataset = documents[0]["instances"][0]["dataset"]
    assert dataset.get("max_deleted_share") == (None if share == 0.5 else share), "the default is left out"
    assert await plan(memory, *documents) == []
    assert bool(unsaid(existing)) is (share is None)
