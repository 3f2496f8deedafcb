"""A confined child sees everything that its run reads, and writes to the places of its own run only."""

from pathlib import Path
from typing import Any

import pytest

from optaic.plugins import DateRange
from support.worker import World
from worker.backtest.settings import BacktestSettings
from worker.child import Task
from worker.confining import confine
from worker.locations import FlowLocation
from worker.preview import Call
from worker.recipe import BacktestRecipe, Component, ExperimentRecipe, Input, StoredData

NOTHING = Component("nowhere:Nothing", {})


def given(root: Path, name: str) -> Input:
    data = StoredData(NOTHING, NOTHING, f"file://{root}/acme/{name}", "1")
    return Input(name, name, name, 1, "", data)


def backtest(root: Path) -> Any:
    prices, signal, members = (given(root, name) for name in ("prices", "signal", "members"))
    return BacktestRecipe(prices, (signal,), BacktestSettings(), members)


def experiment(root: Path) -> Any:
    read = (given(root, "one"), given(root, "other"))
    return ExperimentRecipe(Call("X", ()), None, read, given(root, "prices"), {}, {}, (), DateRange())


@pytest.mark.parametrize(("make", "flow"), [(backtest, "backtest"), (experiment, "preview")])
async def test_the_child_sees_all_inputs(world: World, tmp_path: Path, make: Any, flow: str) -> None:
    recipe, location = make(tmp_path), FlowLocation(f"file://{tmp_path}", "acme", "i", flow)
    task = Task(recipe, location, "r", "info")
    places = await confine(task, "acme", world.settings(tmp_path.as_uri()))
    assert set(places.data) == {f"{tmp_path}/acme/{each.name}" for each in recipe.inputs}
    own = [location.outputs_uri("r"), *([location.data_uri] if recipe.keeps_dataset else [])]
    assert set(places.outputs) == {uri.removeprefix("file://").rstrip("/") for uri in own}
