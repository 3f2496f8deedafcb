"""Keep the time zones of a stored table's columns, because stores keep instants in UTC only."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

_INSTANTS = pl.selectors.datetime(time_zone="*")
Zones = Mapping[str, str]  # by column


def zones_of(table: pl.DataFrame) -> dict[str, str]:
    """Return the zone of each column that has one."""
    kinds = table.select(_INSTANTS).schema.items()
    return {name: str(getattr(kind, "time_zone", None)) for name, kind in kinds}


def to_utc(table: pl.DataFrame) -> pl.DataFrame:
    """Convert instants to UTC."""
    return table.with_columns(_INSTANTS.dt.convert_time_zone("UTC"))


def to_zones(table: pl.DataFrame, zones: Zones, default: str) -> pl.DataFrame:
    """Return the same instants on each column's own clock; `default` where none was kept."""
    return table.with_columns(
        pl.col(name).dt.convert_time_zone(zones.get(name, default)) for name in zones_of(table)
    )
