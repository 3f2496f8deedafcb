"""How a version is read belongs to it: upstreams are read at the pinned revision, and a run says how its output is read."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import polars as pl

from optaic.common.v1 import flow_pb2
from optaic.definition.v1.definition_pb2 import DefinitionVersion
from optaic.plugins import Mode
from optaic.run.v1 import run_pb2
from support.worker import World
from support.worker_peers import pin
from worker.recipe import PipelineRecipe
from worker.recipe_reading import list_version_ids, make_recipe

REFRESH = flow_pb2.FLOW_KIND_REFRESH


async def _execute(world: World, run: run_pb2.Run, root: Path) -> run_pb2.Run:
    await world.execute(run, root)
    return run


async def _completed(world: World, run: run_pb2.Run, root: Path) -> run_pb2.Run:
    await _execute(world, run, root)
    assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
    return run


def _file(world: World, folder: Path) -> Any:
    """A dataset with two columns beside its keys."""
    table = pl.DataFrame(
        {"date": ["2024-01-02", "2024-01-03"], "entity": ["a", "a"], "close": [1.0, 2.0], "open": [3.0, 4.0]}
    )
    table.write_csv(folder / "source.csv")
    return world.dataset(definition="file", url=str(folder / "source.csv"))


def _swap(world: World, instance: Any, component: str, name: str, **config: Any) -> Any:
    """The next revision, with another component."""
    swapped = type(instance)()
    swapped.CopyFrom(instance)
    pin(getattr(swapped.dataset, component), name, **config)
    return world.instances.put(swapped)


async def test_a_run_admitted_before_a_change_of_accessor_reads_with_the_old_one(
    world: World, tmp_path: Path
) -> None:
    prices = _file(world, tmp_path)
    first = await _completed(world, world.runs.submit(prices, REFRESH), tmp_path)
    signal = world.signal("close * 1")
    signal.signal.contract.Clear()
    signal = world.instances.put(signal)
    admitted = world.runs.submit(signal, REFRESH, {"input": first})
    swapped = _swap(world, prices, "accessor", "field", field="open", output="close")
    second = await _completed(world, world.runs.submit(swapped, REFRESH, base=first), tmp_path)
    late = world.runs.submit(signal, REFRESH, {"input": second})
    for run, values in ((admitted, [1.0, 2.0]), (late, [3.0, 4.0])):
        await _completed(world, run, tmp_path)
        version = int(run.output_version.physical_version)
        assert pl.read_delta(run.output_version.uri, version=version)["value"].to_list() == values


async def test_a_run_admitted_before_revisions_were_pinned_reads_the_newest(
    world: World, tmp_path: Path
) -> None:
    prices = _file(world, tmp_path)
    first = await _completed(world, world.runs.submit(prices, REFRESH), tmp_path)
    signal = world.signal("close * 1")
    signal.signal.contract.Clear()
    run = world.runs.submit(world.instances.put(signal), REFRESH, {"input": first})
    run.input_versions[0].instance_revision = 0
    _swap(world, prices, "accessor", "field", field="open", output="close")
    await _completed(world, run, tmp_path)
    assert pl.read_delta(run.output_version.uri)["value"].to_list() == [3.0, 4.0]


async def test_another_accessor_gives_another_readers_hash_for_the_same_content(
    world: World, tmp_path: Path
) -> None:
    prices = _file(world, tmp_path)
    first = await _completed(world, world.runs.submit(prices, REFRESH), tmp_path)
    again = await _completed(world, world.runs.submit(prices, REFRESH, base=first), tmp_path)
    swapped = _swap(world, prices, "accessor", "field", field="close")
    second = await _completed(world, world.runs.submit(swapped, REFRESH, base=again), tmp_path)
    outputs = [run.output_version for run in (first, again, second)]
    assert len({output.digest for output in outputs}) == 1
    hashes = [output.readers_hash for output in outputs]
    assert hashes[0] == hashes[1] != hashes[2]
    assert all(len(each) == 64 for each in hashes)
    assert not any(output.base_readers_hash for output in outputs)
    # How a version is read that was made before that was recorded, its successor says.
    unrecorded = world.runs.submit(swapped, REFRESH, base=again)
    unrecorded.base_version.readers_hash = ""
    await _completed(world, unrecorded, tmp_path)
    assert unrecorded.output_version.base_readers_hash == hashes[0]


async def test_another_zone_gives_another_readers_hash(world: World, tmp_path: Path) -> None:
    """A release that kept no zones filed these times in UTC: the next refresh moves the version, and one more none."""
    times = pl.Series([1_719_788_400_000_000], dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
    table = pl.DataFrame({"date": ["2024-07-01"], "entity": ["a"], "seen": times})
    hashes, run = [], None
    dataset = world.dataset("london", definition="file", url=str(tmp_path / "a.parquet"))
    for zone in ("UTC", "Europe/London", "Europe/London"):
        table.with_columns(table["seen"].dt.convert_time_zone(zone)).write_parquet(tmp_path / "a.parquet")
        run = await _completed(world, world.runs.submit(dataset, REFRESH, base=run), tmp_path)
        hashes.append((run.output_version.digest, run.output_version.readers_hash))
    assert hashes[0][0] == hashes[1][0]
    assert hashes[0][1] != hashes[1][1]
    assert hashes[1] == hashes[2]


async def test_another_store_reads_what_the_old_one_wrote(world: World, tmp_path: Path) -> None:
    prices = _file(world, tmp_path)
    first = await _completed(world, world.runs.submit(prices, REFRESH), tmp_path)
    swapped = _swap(world, prices, "store", "parquet")
    second = await _completed(world, world.runs.submit(swapped, REFRESH, base=first), tmp_path)
    assert second.output_version.digest == first.output_version.digest
    assert second.output_version.readers_hash != first.output_version.readers_hash
    rows = second.pipeline
    assert (rows.rows_inserted, rows.rows_updated, rows.rows_deleted) == (0, 0, 0)
    signal = world.signal("close * 1")
    signal.signal.contract.Clear()
    signal = world.instances.put(signal)
    for upstream in (first, second):
        run = world.runs.submit(signal, REFRESH, {"input": upstream})
        await _completed(world, run, tmp_path)


async def test_a_deletion_is_limited_by_the_dataset_and_the_run(world: World, tmp_path: Path) -> None:
    def write(count: int) -> None:
        table = pl.DataFrame(
            {"date": ["2024-01-02"] * count, "entity": [f"e{each}" for each in range(count)]}
        )
        table.write_csv(tmp_path / "source.csv")

    write(40)
    prices = world.dataset(definition="file", url=str(tmp_path / "source.csv"))
    prices.dataset.max_deleted_share = 0.5
    prices = world.instances.put(prices)
    first = await _completed(world, world.runs.submit(prices, REFRESH), tmp_path)
    write(19)
    refused = world.runs.submit(prices, REFRESH, base=first)
    refused.compute_fingerprint = refused.base_version.compute_fingerprint = "same"
    await _execute(world, refused, tmp_path)
    assert refused.error.type == "DeletionRefused"
    assert "21 of 40 keys" in refused.error.message
    allowed = world.runs.submit(prices, REFRESH, base=first)
    allowed.compute_fingerprint = allowed.base_version.compute_fingerprint = "same"
    allowed.allow_deletion = True
    await _completed(world, allowed, tmp_path)
    assert (allowed.pipeline.rows_deleted, allowed.metrics["rows_deleted"]) == (21, 21)


def _recipe(world: World, run: run_pb2.Run, instance: Any) -> PipelineRecipe:
    ids = list_version_ids([instance])
    versions = {each: DefinitionVersion(definition_version_id=each, code_ref="a:B") for each in ids}
    recipe = make_recipe(run, instance, list(map(world.instances.newest, _upstreams(run))), versions)
    assert isinstance(recipe, PipelineRecipe)
    return recipe


def _upstreams(run: run_pb2.Run) -> list[str]:
    return [pinned.instance_id for pinned in run.input_versions]


def test_the_deletion_limit_applies_only_to_unchanged_configurations_without_inputs() -> None:
    world = World()
    for share, is_same, reads, allowed in itertools.product((None, 0.0, 0.5), *((False, True),) * 3):
        instance = world.dataset()
        if share is not None:
            instance.dataset.max_deleted_share = share
        run = run_pb2.Run(flow_kind=REFRESH, compute_fingerprint="now", allow_deletion=allowed)
        run.base_version.compute_fingerprint = "now" if is_same else "before"
        if reads:
            run.input_versions.add(instance_id=instance.instance_id, physical_version="0", role="input")
        is_judged = share is not None and is_same and not reads and not allowed
        assert _recipe(world, run, instance).max_deleted_share == (share if is_judged else None)


def test_after_a_range_the_next_run_of_all_dates_starts_afresh() -> None:
    world = World()
    instance = world.dataset()
    for is_after_range, is_full, is_range in itertools.product((False, True), repeat=3):
        mode = run_pb2.RUN_MODE_FULL if is_full else run_pb2.RUN_MODE_INCREMENTAL
        run = run_pb2.Run(flow_kind=REFRESH, mode=mode)
        run.base_version.is_partial_range = is_after_range
        if is_range:
            run.parameters["end"] = "2024-01-02"
        recipe = _recipe(world, run, instance)
        assert recipe.is_partial_range is is_range
        assert (recipe.mode is Mode.FULL) is (is_full or (is_after_range and not is_range))
