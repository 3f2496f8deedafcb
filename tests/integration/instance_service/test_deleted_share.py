"""How much a refresh may delete: a setting of datasets and signals that changes nothing of what is computed."""

from __future__ import annotations

import psycopg
import pytest

from optaic.instance.v1.instance_pb2 import Instance
from support.instance_service import RunningInstanceService, refusal

SHARE = "dataset.max_deleted_share"
PIPELINE = {"definition_name": "sp500_prices", "config": {"symbols": ["AAPL"]}}


async def test_the_deletion_limit_does_not_change_the_fingerprint(
    service: RunningInstanceService,
) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    assert prices.dataset.max_deleted_share == 0.5, "what new instances have"
    changed = await service.update(prices.instance_id, {"dataset": {"max_deleted_share": 0.9}}, SHARE)
    assert (changed.revision, changed.dataset.max_deleted_share) == (2, 0.9)
    assert [flow.compute_fingerprint for flow in changed.flows] == [
        flow.compute_fingerprint for flow in prices.flows
    ]
    # An update that does not speak of it leaves it as it was.
    again = await service.update(prices.instance_id, {"dataset": {"pipeline": PIPELINE}}, "dataset")
    assert again.dataset.max_deleted_share == 0.9
    signal = await service.signal(project.project_id, "momentum", prices.instance_id)
    assert signal.signal.dataset.max_deleted_share == 0.5


async def test_a_deletion_limit_of_zero_differs_from_an_unset_limit(service: RunningInstanceService) -> None:
    project = await service.project()
    given = {
        "project_id": project.project_id,
        "name": "strict",
        "dataset": {"pipeline": PIPELINE, "max_deleted_share": 0},
    }
    strict = await service.create(given)
    assert strict.dataset.HasField("max_deleted_share")
    assert strict.dataset.max_deleted_share == 0


@pytest.mark.parametrize("share", [-0.1, 1.1])
async def test_a_number_that_is_not_a_share_is_refused(service: RunningInstanceService, share: float) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    wrong = await refusal(
        service.update(prices.instance_id, {"dataset": {"max_deleted_share": share}}, SHARE)
    )
    assert wrong.reason == "INVALID_ARGUMENT"
    assert "instance.dataset.max_deleted_share" in wrong.fields


async def test_an_older_instance_does_not_get_a_deletion_limit_by_itself(
    service: RunningInstanceService,
) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    await _forget_share(service, prices)
    renamed = await service.update(prices.instance_id, {"name": "renamed"}, "name")
    assert not renamed.dataset.HasField("max_deleted_share")
    changed = await service.update(prices.instance_id, {"dataset": {"pipeline": PIPELINE}}, "dataset")
    assert not changed.dataset.HasField("max_deleted_share")
    judged = await service.update(prices.instance_id, {"dataset": {"max_deleted_share": 0.5}}, SHARE)
    assert judged.dataset.max_deleted_share == 0.5


async def _forget_share(service: RunningInstanceService, instance: Instance) -> None:
    """Store the instance as an earlier release did."""
    old = await service.until_active(instance.instance_id)
    old.dataset.ClearField("max_deleted_share")
    url = service.owner_url.replace("+psycopg", "").replace("instance_owner", "postgres")
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute(
            "update instances set snapshot = %s where instance_id = %s",
            (old.SerializeToString(), old.instance_id),
        )
