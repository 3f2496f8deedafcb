"""Read the recipe of an optimizer's decision."""

from __future__ import annotations

from collections.abc import Sequence

from optaic.instance.v1 import instance_pb2
from optaic.plugins import MissingInput
from optaic.rules.roles import COVARIANCE, SIGNAL
from optaic.rules.run_parameters import DATA_DATE
from optaic.run.v1 import run_pb2
from worker.builtin.parameters import read_date
from worker.recipe import Input, OptimizationRecipe
from worker.recipe_reading.components import Versions, read_guardrails, read_optimizer, read_struct
from worker.recipe_reading.outputs import form_of


def make_optimization(
    run: run_pb2.Run, instance: instance_pb2.Instance, inputs: Sequence[Input], versions: Versions
) -> OptimizationRecipe:
    """Return what an optimizer computes.

    Raises:
        MissingInput: the run reads no signal, or not exactly one dataset of prices in the role `covariance`.
    """
    order = [ref.resource_id for ref in instance.upstream_refs if ref.role == SIGNAL]
    signals = sorted(
        (found for found in inputs if found.role == SIGNAL), key=lambda found: order.index(found.instance_id)
    )
    if not signals:
        raise MissingInput(
            f"upstream_refs: an optimizer needs a signal; add an upstream with the role {SIGNAL}"
        )
    prices = [found for found in inputs if found.role == COVARIANCE]
    if len(prices) != 1:
        raise MissingInput(
            f"upstream_refs: an optimizer needs exactly one dataset of prices with the role {COVARIANCE}, not {len(prices)}; "
            "its returns come from there"
        )
    spec, base = instance.portfolio_optimizer, run.base_version
    optimizer = read_optimizer(instance, versions)
    form = form_of(instance, versions)
    assert form is not None
    return OptimizationRecipe(
        optimizer=optimizer,
        signals=tuple(signals),
        prices=prices[0],
        primary_weight=spec.primary_weight if spec.HasField("primary_weight") else 1.0 / len(signals),
        data_date=read_date(read_struct(run.parameters), DATA_DATE),
        guardrails=read_guardrails(versions[instance.definition_version_id], optimizer.config),
        base=form.at(base.uri, base.physical_version, base.digest) if base.physical_version else None,
    )
