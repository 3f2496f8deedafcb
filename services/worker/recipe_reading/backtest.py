"""Read the recipe of a backtest."""

from __future__ import annotations

from collections.abc import Sequence

from optaic.instance.v1 import instance_pb2
from optaic.plugins import MissingInput
from optaic.rules.roles import MEMBERSHIP, OPTIMIZER, PRICES
from worker.backtest.settings import BacktestSettings
from worker.recipe import BacktestRecipe, ConfiguredOptimizer, Input
from worker.recipe_reading.components import to_mapping


def make_backtest(
    instance: instance_pb2.Instance, inputs: Sequence[Input], optimizer: ConfiguredOptimizer | None
) -> BacktestRecipe:
    """Return what a backtest computes.

    Raises:
        InvalidConfig: a setting is wrong, or does not fit the backtest's having an optimizer or not.
        MissingInput: the run reads no version of a signal, of the membership or of exactly one dataset of prices, or names no
            revision of the optimizer.
    """
    spec = instance.backtest
    wanted = (spec.signals.primary, *spec.signals.secondary)
    by_id = {found.instance_id: found for found in inputs}
    if missing := [signal for signal in wanted if signal not in by_id]:
        raise MissingInput(
            f"signals: the run reads no version of {', '.join(missing)}; submit a new run, which reads the present signals"
        )
    universe = [entity for entity in spec.assets.universe if entity not in by_id]
    memberships = [found for found in inputs if found.role == MEMBERSHIP]
    if spec.assets.membership_id and not memberships:
        raise MissingInput(
            "assets.membership_id: the run reads no version of it; submit a new run, which reads the present membership"
        )
    others = [found for found in inputs if found.instance_id not in wanted and found.role != MEMBERSHIP]
    # The id of a dataset in the universe, or the role `prices`; else there must be just one candidate.
    prices = (
        [found for found in others if found.instance_id in spec.assets.universe]
        or [found for found in others if found.role == PRICES]
        or others
    )
    if len({found.instance_id for found in prices}) != 1:
        raise MissingInput(
            f"upstream_refs: a backtest needs exactly one dataset of prices, not {len(prices)}; give one dataset the role {PRICES}"
        )
    if optimizer is None and any(ref.role == OPTIMIZER for ref in instance.upstream_refs):
        raise MissingInput(
            "upstream_refs: the run names no revision of the optimizer; submit a new run, which reads the present one"
        )
    settings = to_mapping(spec)
    settings.setdefault("assets", {})["universe"] = universe
    return BacktestRecipe(
        prices[0],
        tuple(by_id[signal] for signal in wanted),
        BacktestSettings.from_spec(settings, has_optimizer=optimizer is not None),
        memberships[0] if memberships else None,
        optimizer,
    )
