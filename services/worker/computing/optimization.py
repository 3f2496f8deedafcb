"""Execute an optimizer's decision: combine the signals, take the returns, ask the plugin, keep the weights."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import polars as pl

from optaic.plugins import Allocation, NoDataInRange, Optimizer, load
from optaic.rules.columns import DATE
from optaic.run.v1 import run_pb2
from worker.backtest.allocation import decide
from worker.builtin.delta_store import DeltaStore
from worker.computing.inputs import has_later, make_store, open_input, read_signal
from worker.computing.output import Output, Progress, find_former_digest
from worker.guardrails import check_guardrails
from worker.locations import FlowLocation, write_table
from worker.optimization.decisions import add_decision, table_of, weights_before
from worker.optimization.measures import measure
from worker.optimization.returns import Past, read_past
from worker.optimization.scores import Scores, combine_scores
from worker.recipe import ConfiguredOptimizer, OptimizationRecipe

WEIGHTS = "weights"  # the artifact with the new decision
_MOST_NAMES = 20  # in one sentence


@dataclass(frozen=True)
class _Question:
    """The question to the plugin."""

    date: dt.date
    scores: dict[str, float]
    returns: pl.DataFrame
    left_out: list[str]  # with a score and without a close


def optimize(recipe: OptimizationRecipe, location: FlowLocation, run_id: str, progress: Progress) -> Output:
    """Execute the recipe of a decision; its output is a version of the flow's dataset, which keeps the earlier decisions.

    Raises:
        GuardrailViolated: by the weights; nothing was written.
        NoDataInRange: the signals do not have the date, or there are too few prices.
        NoSolution: no weights satisfy the constraints.
        PluginError: whatever else is wrong with the plugin or its inputs.
    """
    optimizer = load_optimizer(recipe.optimizer)
    progress(0.1, "reading the signals")
    signals = [read_signal(signal, recipe.data_date) for signal in recipe.signals]
    scores = combine_scores(signals, recipe.primary_weight, recipe.data_date)
    progress(0.3, f"reading the returns up to {scores.date}")
    past = read_past(open_input(recipe.prices, recipe.data_date).frame, scores.date)
    asked = _ask(scores, past)
    progress(0.5, f"deciding on {len(asked.scores)} scores")
    found = decide(optimizer, asked.scores, asked.returns)
    # Where nothing is to be held, the decision says so of everybody.
    decision = table_of(scores.date, found.weights or dict.fromkeys(asked.scores, 0.0))
    progress(0.8, "checking guardrails")
    warned = check_guardrails(decision, recipe.guardrails, scores.date)
    earlier = _read_earlier(recipe)
    before = weights_before(earlier, scores.date)
    decisions = add_decision(earlier, decision, scores.date)
    progress(0.9, f"writing {decisions.height} rows")
    artifact = f"{location.outputs_uri(run_id)}{WEIGHTS}.parquet"
    write_table(artifact, decision)
    base = recipe.base if recipe.base is not None and recipe.base.uri == location.data_uri else None
    stored = DeltaStore().write(decisions, None if base is None else base.physical_version, location.data_uri)
    sessions = optimizer.sessions_needed()
    window = asked.returns if sessions is None else asked.returns.tail(sessions)
    status = str(found.diagnostics.get("solver_status", "solved"))
    return Output(
        uri=stored.uri,
        physical_version=stored.physical_version,
        digest=stored.digest,
        changed=stored.changed,
        former_digest=find_former_digest(recipe.base.digest if recipe.base else "", stored, decisions),
        last_data_date=str(stored.last_data_date or ""),
        metrics={
            "decision_date": str(scores.date),
            **measure(found.weights, window, None if before is None else before[1]),
            "solver_status": status,
            "previous_decision_date": None if before is None else str(before[0]),
            "decisions": decisions[DATE].n_unique(),
            "rows": decisions.height,
            "scores": len(asked.scores),
            "scores_without_close": len(asked.left_out),
            "last_return_date": str(past.last_session),
            "thin_dates": past.thin_dates,
            **_tell(found),
            **{f"guardrail.{name}": text for name, text in warned.items()},
            "warnings": _warn(asked, past),
        },
        artifacts={"data": stored.uri, WEIGHTS: artifact},
        result=run_pb2.PortfolioOptimizationResult(
            decision_date=str(scores.date),
            solver_status=status,
            asset_count=sum(weight != 0.0 for weight in found.weights.values()),
            decision_count=decisions[DATE].n_unique(),
        ),
        is_partial_range=has_later(recipe.inputs, recipe.data_date),
    )


def load_optimizer(given: ConfiguredOptimizer) -> Optimizer:
    """Return an optimizer as it is configured."""
    return load(given.code_ref, Optimizer)(given.config, given.constraints)


def _ask(scores: Scores, past: Past) -> _Question:
    """Leave out who has no close on the last session: it cannot be bought, and has no return.

    Raises:
        NoDataInRange: nobody is left.
    """
    kept = {name: value for name, value in scores.by_entity.items() if name in past.priced}
    left_out = [name for name in scores.by_entity if name not in kept]
    if not kept:
        raise NoDataInRange(
            f"covariance: none of the {len(left_out)} entities with a score has a close on {past.last_session}, for example "
            f"{', '.join(left_out[:5])}; choose prices of the entities of the signals"
        )
    return _Question(scores.date, kept, past.returns, left_out)


def _read_earlier(recipe: OptimizationRecipe) -> pl.DataFrame | None:
    if (base := recipe.base) is None:
        return None
    return make_store(base.store, base.timezone).read(base.uri, base.physical_version)


def _tell(found: Allocation) -> dict[str, object]:
    """Return what the plugin says of its decision, under names of its own."""
    return {
        f"optimizer.{name}": value for name, value in found.diagnostics.items() if name != "solver_status"
    }


def _warn(asked: _Question, past: Past) -> list[str]:
    """Say what a reader should know before believing the weights."""
    said = []
    if asked.left_out:
        names = ", ".join(asked.left_out[:_MOST_NAMES])
        more = f" and {len(asked.left_out) - _MOST_NAMES} more" if len(asked.left_out) > _MOST_NAMES else ""
        said.append(
            f"{len(asked.left_out)} entities with a score have no close on {past.last_session} and get no weight: {names}{more}"
        )
    if past.last_session < asked.date:
        said.append(
            f"the prices end on {past.last_session}, before the decision of {asked.date}; refresh them, or set data_date"
        )
    return said
