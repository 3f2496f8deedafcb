"""Compute the readers' hash: a digest of the way in which a dataset's versions are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from optaic.plugins import take_days
from optaic.plugins.days import UTC


def hash_readers(readers: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the SHA-256 over content hashes and configurations, by component; the same on every machine.

    A number is the same number whether it is written 1 or 1.0, as in the compute fingerprint.
    """
    text = json.dumps(
        _plain(readers), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def add_zones(readers_hash: str, zones: Mapping[str, str], timezone: str) -> str:
    """Return the readers' hash extended by the zones of columns that differ from the dataset's zone."""
    others = {name: zone for name, zone in zones.items() if zone != timezone}
    return hash_readers({"readers": {"hash": readers_hash}, "zones": others}) if others else readers_hash


def zones_seen_before(table: pl.DataFrame, zones: Mapping[str, str]) -> Mapping[str, str]:
    """Return those zones that change no day: a release that kept no zones has shown their columns' days as they are."""
    return {
        name: zone
        for name, zone in zones.items()
        if (take_days(table[name], zone) == take_days(table[name], UTC)).all()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
