"""A program in Dagster's environment: print the seconds that the stale statuses of many assets take, as JSON.

The assets lie in layers, three edges into each, and all are materialized. Then one of the first layer is materialized with new data.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

_WIDTH = 100
_ROUNDS = 2


def _key(number: int) -> dg.AssetKey:
    return dg.AssetKey(f"asset_{number}")


def _above(number: int) -> list[int]:
    layer, place = divmod(number, _WIDTH)
    return [(layer - 1) * _WIDTH + (place + k * 7) % _WIDTH for k in range(3)] if layer else []


def _tags(number: int, version: str) -> Mapping[str, str]:
    inputs = {}
    for above in _above(number):
        name = _key(above).to_user_string()
        inputs |= {f"dagster/input_data_version/{name}": "first", f"dagster/input_event_pointer/{name}": "1"}
    return {"dagster/data_version": version, "dagster/code_version": "1", **inputs}


def _asset(number: int) -> Any:
    @dg.asset(key=_key(number), deps=[_key(above) for above in _above(number)], code_version="1")
    def compute() -> None: ...

    return compute


def main(count: int) -> None:
    """Measure with a new resolver each time: it asks for one asset after the other, or has all their records at once."""
    definitions = dg.Definitions([_asset(number) for number in range(count)])
    graph = definitions.resolve_asset_graph()
    with dg.DagsterInstance.local_temp(overrides={"telemetry": {"enabled": False}}) as instance:
        for number, version in [*((number, "first") for number in range(count)), (0, "second")]:
            event = dg.AssetMaterialization(_key(number), tags=_tags(number, version))
            instance.report_runless_asset_event(event)

        def read(*, prefetches: bool) -> float:
            began = time.perf_counter()
            resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
            keys = [_key(number) for number in range(count)]
            if prefetches:
                resolver.instance_queryer.prefetch_asset_records(keys)
            statuses = [resolver.get_status(key) for key in keys]
            elapsed = time.perf_counter() - began
            assert statuses.count(StaleStatus.STALE) == 3  # those that read it directly
            return elapsed

        found = {
            name: min(read(prefetches=prefetches) for _ in range(_ROUNDS))
            for name, prefetches in (("seconds", False), ("prefetched_seconds", True))
        }
    print(json.dumps(found))  # noqa: T201 - the answer to the program that started it


if __name__ == "__main__":
    main(int(sys.argv[1]))
