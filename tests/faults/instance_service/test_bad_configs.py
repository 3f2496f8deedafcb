"""Generated configs that are wrong in one place: each is refused there, and nothing is written."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import grpc
import pytest

from devstack.postgres import Postgres
from support.definitions import MANIFESTS, MODEL_CONFIG, experiment, model, optimizer, publish
from support.instance_service import RunningInstanceService, instance_service, refusal

pytestmark = pytest.mark.faults
_COUNT = 10_000 if os.environ.get("OPTAIC_FAULTS") == "full" else 25
_NAMES = ("speed", "Ünknown", "a.b", "x y", "__proto__", "0", "$ref", "'", "a" * 300)
_GARBAGE = ("", " ", "((", "close +", "WOBBLE(close)", "REF(close, -1)", "close ** 2", "é", "1 2", "#")
_HALF = 0.5
_CONFIGS: dict[str, dict[str, Any]] = {
    "pipeline": {"symbols": ["AAPL", "MSFT"], "start": "2020-01-01", "as_of": "2021-12-31"},
    "store": {"keys": ["date", "entity"], "compression": "zstd"},
    "accessor": {"field": "close", "output": "value"},
    "op": {"x": "close", "n": 5},
    "ml_module": {**MODEL_CONFIG, "alpha": 0.5},
    "portfolio_optimizer": {"risk_aversion": 2},
}
_Path: TypeAlias = tuple[str | int, ...]
_Subject: TypeAlias = tuple[Callable[[dict[str, Any]], dict[str, Any]], str]


def _places(value: Any, path: _Path = ()) -> Iterator[_Path]:
    """Yield every place in a config but its root."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, item in items:
        yield (*path, key)
        yield from _places(item, (*path, key))


def _get(config: Any, path: _Path) -> Any:
    for key in path:
        config = config[key]
    return config


def _spoil(generator: random.Random, config: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return a config that is wrong in one place, and the path of that place."""
    spoiled = copy.deepcopy(config)
    place = generator.choice([(), *_places(config)])
    found = _get(spoiled, place)
    if isinstance(found, dict) and (not place or generator.random() < _HALF):
        found[generator.choice(_NAMES)] = generator.choice([None, 1, "x", {}, []])
    elif place[-1] in {"expression", "x"} and generator.random() < _HALF:
        _get(spoiled, place[:-1])[place[-1]] = generator.choice(_GARBAGE)
    else:
        others = [True, "x", [7]] if isinstance(found, dict) else [{}, {"x": 1}, {"x": [None]}]
        _get(spoiled, place[:-1])[place[-1]] = generator.choice(others)
    return spoiled, "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place)


async def _subject(service: RunningInstanceService, kind: str) -> _Subject:
    project_id = (await service.project()).project_id
    prices = (await service.prices(project_id)).instance_id
    signal = (await service.signal(project_id, "signal", prices)).instance_id
    for name in MANIFESTS:
        await publish(service, name)

    def dataset(config: dict[str, Any]) -> dict[str, Any]:
        names = {"pipeline": "sp500_prices", "store": "parquet", "accessor": "field"}
        components: dict[str, Any] = {"pipeline": {"definitionName": "sp500_prices"}}
        components[kind] = {"definitionName": names[kind], "config": config}
        return {"projectId": project_id, "name": "bad", "dataset": components}

    match kind:
        case "op":
            return lambda config: experiment(project_id, "bad", prices, config=config), "instance.config"
        case "ml_module":
            return lambda config: model(project_id, "bad", prices, config=config), "instance.config"
        case "portfolio_optimizer":
            return lambda config: optimizer(project_id, "bad", signal, config=config), "instance.config"
    return dataset, f"instance.dataset.{kind}.config"


@pytest.mark.parametrize("kind", _CONFIGS)
async def test_a_bad_config_is_refused_at_its_place(
    postgres_server: Postgres, nats_url: str, kind: str
) -> None:
    del postgres_server
    generator = random.Random(kind)
    async with instance_service(nats_url, drift_interval_seconds=60) as service:
        make, prefix = await _subject(service, kind)
        assert await service.create({**make(_CONFIGS[kind]), "name": "good"})
        before = await service.row_counts()
        for _ in range(_COUNT):
            spoiled, place = _spoil(generator, _CONFIGS[kind])
            refused = await refusal(service.create(make(spoiled)))
            assert refused.code == grpc.StatusCode.INVALID_ARGUMENT, (spoiled, refused)
            assert refused.reason in {"INVALID_CONFIG", "INVALID_EXPRESSION"}, (spoiled, refused)
            assert any(path.startswith(prefix + place) for path in refused.fields), (spoiled, refused)
        assert await service.row_counts() == before
