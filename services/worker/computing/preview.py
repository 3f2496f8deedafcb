"""Execute a preview: read the inputs, evaluate and measure, write the artifacts."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict

from optaic.plugins import day_in, take_days, zone_of
from optaic.rules.columns import DATE
from optaic.rules.kinds import TIMEZONE
from optaic.run.v1 import run_pb2
from worker.builtin.delta_store import DeltaStore
from worker.computing.inputs import load_operators, open_input
from worker.computing.output import Output, Progress, as_number, find_former_digest, scale
from worker.guardrails import check_guardrails
from worker.locations import FlowLocation, write_table
from worker.preview import Library, run
from worker.recipe import ExperimentRecipe


def preview(recipe: ExperimentRecipe, location: FlowLocation, run_id: str, progress: Progress) -> Output:
    """Execute the recipe of a preview; its output is a version of the flow's dataset, which holds this preview only."""
    found = run(
        recipe.call,
        [open_input(given) for given in recipe.read],
        Library(recipe.macros, load_operators(recipe.operators)),
        recipe.universe,
        recipe.date_range,
        None if recipe.prices is None else open_input(recipe.prices),
        scale(progress, 0.05, 0.85),
    )
    if recipe.guardrails:
        progress(0.88, "checking guardrails")
        as_of = recipe.scheduled_date or day_in(dt.datetime.now(dt.UTC), TIMEZONE)
        broken = check_guardrails(found.table, recipe.guardrails, as_of)
        found.metrics.update({f"guardrail.{name}": text for name, text in broken.items()})
    progress(0.9, f"writing {found.table.height} rows")
    days = take_days(found.table[DATE], zone_of(found.table[DATE]))
    first, last = str(days.min()), str(days.max())
    tables = {"preview": found.table, "preview_sample": found.sample}
    artifacts = {name: f"{location.outputs_uri(run_id)}{name}.parquet" for name in tables}
    for name, table in tables.items():
        write_table(artifacts[name], table)
    stored = DeltaStore().write(found.table, None, location.data_uri)
    # A message's number cannot be absent: NaN says that a figure is not defined.
    figures = {name: as_number(figure) for name, figure in asdict(found.moments).items()}
    return Output(
        uri=stored.uri,
        physical_version=stored.physical_version,
        digest=stored.digest,
        former_digest=find_former_digest(recipe.base_digest, stored, found.table),
        last_data_date=last,
        metrics={**found.metrics, "first_date": first, "last_date": last},
        artifacts={"data": stored.uri, **artifacts},
        result=run_pb2.ExperimentResult(row_count=found.table.height, nan_share=found.nan_share, **figures),
    )
