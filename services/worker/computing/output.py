"""The output of a run of any kind, and its progress until then."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from optaic.plugins import ChangedDates, DateRange, StoredVersion
from optaic.run.v1 import run_pb2
from worker.builtin.day_digests import PREFIX
from worker.builtin.digest import canonicalize, compute_digest

Progress = Callable[[float, str], None]  # a share from 0 to 1, and what is done now
Result = (
    run_pb2.PipelineResult
    | run_pb2.ExperimentResult
    | run_pb2.BacktestResult
    | run_pb2.PortfolioOptimizationResult
    | run_pb2.TrainingResult
    | run_pb2.InferenceResult
    | run_pb2.MonitoringResult
)


@dataclass(frozen=True)
class Output:
    """The output of a run."""

    uri: str
    physical_version: str
    digest: str
    last_data_date: str  # YYYY-MM-DD or empty
    metrics: Mapping[str, object]
    artifacts: Mapping[str, str]  # name -> URI
    result: Result
    readers_hash: str = ""  # how it is read; empty where that is not by store and accessor
    base_readers_hash: str = ""
    is_partial_range: bool = False  # an input has later dates than the run was to read
    changed: DateRange | None = None  # the days in which it differs from its base; None: every day may
    # Of a run of a range: in which days a run without one might have changed its base; None: in any.
    affected: ChangedDates | None = None
    source_token: str = ""  # of the source before it was read
    former_digest: str = ""  # by which a base of an earlier release is compared


def find_former_digest(base_digest: str, stored: StoredVersion, table: pl.DataFrame) -> str:
    """Return the digest that earlier releases gave a content that was stored, where that of the base is one of theirs."""
    if not base_digest or base_digest.startswith(PREFIX) or not stored.digest.startswith(PREFIX):
        return ""
    return compute_digest(canonicalize(table, stored.keys, table.columns))


def as_number(figure: float | None) -> float:
    """Return a figure as a result message has it, in which a number cannot be absent: NaN stands for one that is not defined."""
    return math.nan if figure is None else figure


def scale(progress: Progress, start: float, end: float) -> Progress:
    """Return the progress of a part of the run, which takes it from `start` to `end`."""
    return lambda fraction, message: progress(start + (end - start) * _clamp(fraction), message)


def _clamp(fraction: float) -> float:
    return min(max(fraction, 0.0), 1.0) if math.isfinite(fraction) else 0.0
