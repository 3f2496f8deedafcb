"""Execute a backtest: read prices and signals, simulate, write the artifacts."""

from __future__ import annotations

from optaic.rules.columns import DATE
from optaic.run.v1 import run_pb2
from worker import backtest
from worker.builtin.digest import canonicalize, compute_digest
from worker.computing.inputs import open_input, read_signal
from worker.computing.optimization import load_optimizer
from worker.computing.output import Output, Progress, scale
from worker.locations import write_table
from worker.recipe import BacktestRecipe


def simulate(recipe: BacktestRecipe, outputs_uri: str, run_id: str, progress: Progress) -> Output:
    """Execute the recipe of a backtest; its output is the folder of its artifacts."""
    prices = open_input(recipe.prices).frame
    signals = [read_signal(signal) for signal in recipe.signals]
    found = backtest.run(
        prices,
        signals,
        recipe.settings,
        scale(progress, 0.05, 0.85),
        None if recipe.membership is None else open_input(recipe.membership).frame,
        None if recipe.optimizer is None else load_optimizer(recipe.optimizer),
    )
    progress(0.9, "writing artifacts")
    artifacts = {name: f"{outputs_uri}{name}.parquet" for name in found.tables}
    for name, table in found.tables.items():
        write_table(artifacts[name], table)
    dates = found.equity_curve[DATE]
    first, last = str(dates.min()), str(dates.max())
    return Output(
        uri=outputs_uri,
        physical_version=run_id,
        digest=compute_digest(canonicalize(found.equity_curve, [DATE])),
        last_data_date=last,
        metrics={**found.metrics, "first_date": first, "last_date": last},
        artifacts=artifacts,
        result=run_pb2.BacktestResult(
            first_date=first,
            last_date=last,
            session_count=dates.len(),
            execution_count=int(found.metrics["executions"] or 0),
        ),
    )
