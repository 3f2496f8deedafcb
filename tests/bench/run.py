"""Runs every benchmark and prints one table; it fails for no figure."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # started as a script: `bench` and `support` are in tests/

from bench.report import Row
from support.postgres import running_postgres

BENCHMARKS = (
    "submit",
    "start",
    "status_latency",
    "propagation",
    "lineage_reads",
    "history",
    "refresh",
    "beside_peers",
    "status_reads",
    "live_messages",
    "create",
    "catalogue",
    "reconciler",
    "backtest",
    "neighbours",
    "expression",
    "incremental",
    "object_store",
    "command_line",
    "console",
)
SIZES = {
    "create": 300,
    "catalogue": 1_000_000,
    "reconciler": 10_000,
    "expression": 4_000_000,
    "status_latency": 200,
    "live_messages": 1_000,
    "incremental": 8_000,
    "propagation": 1_000_000,
    "lineage_reads": 1_000_000,
    "history": 1_000_000,
    "refresh": 10_000,
    "beside_peers": 1_000,
}  # instances, rows, runs, changes, sessions or flows; where it can be chosen


async def main(names: list[str], sizes: Mapping[str, int]) -> list[Row]:
    """All rows, one benchmark after the other: they share the machine."""
    rows: list[Row] = []
    for name in names:
        arguments = [sizes[name]] if name in sizes else []
        rows += await importlib.import_module(f"bench.{name}").measure(*arguments)
    return rows


def show(rows: list[Row]) -> None:
    """Print the table."""
    table = Table("figure", "value", "unit", "peer", "ratio", "limit")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(
            row.name,
            f"{row.value:,.2f}",
            row.unit,
            "" if row.peer is None else f"{row.peer:,.2f}",
            "" if row.ratio is None else f"{row.ratio:.1f}x",
            "" if row.limit is None else f"{row.limit:.1f}x",
        )
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benchmarks", nargs="*", default="all", choices=["all", *BENCHMARKS])
    for name, size in SIZES.items():
        parser.add_argument(
            f"--{name}", type=int, default=size, metavar="INSTANCES", help=f"default {size:,}"
        )
    arguments = parser.parse_args()
    names = [name for name in BENCHMARKS if name in arguments.benchmarks or "all" in arguments.benchmarks]
    sizes = {name: getattr(arguments, name) for name in SIZES}
    # PostgreSQL for the benchmarks that start no service.
    with running_postgres(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(main(names, sizes))
    show(rows)
