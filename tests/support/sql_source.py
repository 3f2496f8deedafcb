"""A database with a table of prices, and the pipelines that read it."""

import datetime as dt
from dataclasses import dataclass

import polars as pl
import sqlalchemy as sa

from optaic.plugins import (
    DateRange,
    Mode,
    PipelineContext,
)
from worker.builtin.sql_source import SqlPipeline
from worker.builtin.typed_sql_source import TypedSqlPipeline

DAYS = [dt.date(2020, 1, day) for day in range(1, 6)]
PASSWORD = "secret"
COLUMNS = {"date": "day", "entity": "ticker", "close": "px", "seq": "seq"}


@dataclass
class Database:
    """A database with the table `prices (day, ticker, px, seq)`."""

    url: str  # as it is configured
    engine: sa.Engine

    def insert(self, *rows: tuple[dt.date, str, float | None, int]) -> None:
        """More prices."""
        with self.engine.begin() as connection:
            for day, ticker, px, seq in rows:
                connection.execute(
                    sa.text("insert into prices values (:day, :ticker, :px, :seq)"),
                    {"day": day.isoformat(), "ticker": ticker, "px": px, "seq": seq},
                )

    def execute(self, statement: str, **values: object) -> None:
        """Execute one statement."""
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement), values)


def run(
    database: Database,
    previous: pl.DataFrame | None = None,
    *,
    mode: Mode = Mode.INCREMENTAL,
    within: DateRange | None = None,
    timezone: str = "UTC",
    **options: object,
) -> pl.DataFrame:
    """Return the rows that the pipelines of either version read, sorted."""
    config: dict[str, object] = {"url": database.url, "columns": COLUMNS, **options}
    if "query" not in config:
        config.setdefault("table", "prices")
    context = PipelineContext(
        config=config,
        mode=mode,
        previous_reader=lambda: previous,
        date_range=within or DateRange(),
        timezone=timezone,
    )
    found = SqlPipeline().run(context)
    assert TypedSqlPipeline().run(context).equals(found)  # without types, both versions are one
    return found.sort("date", "entity")
