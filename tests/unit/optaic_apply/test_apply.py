"""Documents to actions: what is refused and where, what is changed, and in which order; applied, nothing is left."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from optaic.apply.documents import MANAGER, read_documents
from optaic.apply.execution import read_existing
from optaic.apply.export import Definitions, export_documents
from optaic.apply.plan import make_plan
from optaic.definition.v1 import definition_pb2
from optaic.errors import ConflictError, InvalidArgumentError
from optaic.instance.v1.instance_pb2 import Instance
from support.apply import BACKTEST, HALVED, PRICES, SMOOTH, Memory, apply, document, plan, said, traded

ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        (3, "documents[0]", "INVALID_VALUE"),
        ({"colour": 1}, "documents[0].colour", "UNKNOWN_FIELD"),
        ({"instances": []}, "documents[0].project", "REQUIRED"),
        ({"project": "p", "instances": []}, "documents[0].manager", "REQUIRED"),
        (document({**PRICES, "colour": 1}), "documents[0].instances[0].colour", "UNKNOWN_FIELD"),
        (document({**PRICES, "instance_id": "x"}), "documents[0].instances[0].instance_id", "UNKNOWN_FIELD"),
        (document({**PRICES, "name": 3}), "documents[0].instances[0].name", "INVALID_VALUE"),
        (document({**PRICES, "model": {}}), "documents[0].instances[0].model", "INVALID_VALUE"),
        (document({"name": "x"}), "documents[0].instances[0]", "REQUIRED"),
        (document({"name": "x", "model": None}), "documents[0].instances[0].model", "INVALID_VALUE"),
        (
            document({"name": "x", "dataset": {"pipeline": {"config_json": {}}}}),
            "documents[0].instances[0].dataset.pipeline.config_json",
            "UNKNOWN_FIELD",
        ),
        (
            document({**PRICES, "freshness_policy": {"frequency": "hourly"}}),
            "documents[0].instances[0].freshness_policy.frequency",
            "INVALID_VALUE",
        ),
        *[
            (
                document({**PRICES, "schedule": {"manual": {}, "overlap_policy": policy}}),
                "documents[0].instances[0].schedule.overlap_policy",
                "INVALID_VALUE",
            )
            for policy in (7, True, 1.5, "never", ["skip"])
        ],
        *[
            (
                document({"name": "x", "dataset": {"pipeline": {"config": {"a": [{"b": number}]}}}}),
                f"documents[0].instances[0].dataset.pipeline.config{where}",
                "INVALID_VALUE",
            )
            for number, where in (
                (math.nan, ".a[0].b"),
                (math.inf, ".a[0].b"),
                (10**400, ".a[0].b"),
                (2**53 + 1, ".a[0].b"),
                ({1: "x"}, ".a[0].b"),
                (b"x", ".a[0].b"),
                ("\ud800", ".a[0].b"),
                (ENDLESS, ""),
            )
        ],
        *[
            (
                document({**PRICES, "freshness_policy": {"frequency": "daily", "grace": grace}}),
                "documents[0].instances[0].freshness_policy.grace",
                "INVALID_VALUE",
            )
            for grace in (math.nan, math.inf, 1e300, "soon")
        ],
        (
            document({"name": "x", "signal": {"contract": {"min_value": -math.inf}}}),
            "documents[0].instances[0].signal.contract.min_value",
            "INVALID_VALUE",
        ),
        (document({**PRICES, "upstreams": ["a"]}), "documents[0].instances[0].upstreams", "INVALID_VALUE"),
        (
            document({**PRICES, "labels": {MANAGER: "me"}}),
            f"documents[0].instances[0].labels.{MANAGER}",
            "INVALID_VALUE",
        ),
        (document(PRICES, PRICES), "documents[0].instances[1].name", "DUPLICATE_NAME"),
        ({"definitions": [SMOOTH, SMOOTH]}, "documents[0].definitions[1]", "DUPLICATE_NAME"),
        ({"definitions": [{**SMOOTH, "kind": "car"}]}, "documents[0].definitions[0].kind", "INVALID_VALUE"),
        ({"definitions": [{**SMOOTH, "state": "new"}]}, "documents[0].definitions[0].state", "INVALID_VALUE"),
    ],
)
def test_an_error_has_its_path(value: Any, path: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_documents([value])
    assert caught.value.reason == "INVALID_DOCUMENT"
    assert (path, reason) in [(each.field, each.reason) for each in caught.value.violations]


@pytest.mark.parametrize(
    ("instances", "path", "reason"),
    [
        ([HALVED], "documents[0].instances[0].upstreams.input", "UNKNOWN_REFERENCE"),
        ([PRICES, BACKTEST], "documents[0].instances[1].backtest.signals.primary", "UNKNOWN_REFERENCE"),
        ([{**PRICES, "upstreams": {"input": "prices"}}], "documents[0].instances[0].upstreams", "CYCLE"),
        (
            [{**PRICES, "upstreams": {"input": "halved"}}, HALVED],
            "documents[0].instances[0].upstreams",
            "CYCLE",
        ),
        (
            [{"name": "x", "dataset": {"pipeline": {"definition_name": "fiel"}}}],
            "documents[0].instances[0].dataset.pipeline.definition_name",
            "UNKNOWN_REFERENCE",
        ),
        ([{"name": "x", "model": {}}], "documents[0].instances[0].definition_name", "REQUIRED"),
    ],
)
async def test_an_unknown_or_cyclic_reference_is_an_error_with_its_path(
    memory: Memory, instances: list[Any], path: str, reason: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await plan(memory, document(*instances))
    assert [(each.field, each.reason) for each in caught.value.violations] in (
        [(path, reason)],
        [(path.replace("[0].upstreams", "[1].upstreams"), reason)],
    )


async def test_upstreams_are_created_first_and_deleted_last(memory: Memory) -> None:
    file = document(BACKTEST, HALVED, PRICES)
    assert said(await apply(memory, file)) == [
        "create p",
        "create prices",
        "create halved",
        "create backtest",
    ]
    assert await plan(memory, file, prune=True) == []
    assert said(await apply(memory, document(PRICES), prune=True)) == ["delete backtest", "delete halved"]
    assert said(await plan(memory, document())) == []


async def test_only_differing_resources_are_changed(memory: Memory) -> None:
    await apply(memory, document(PRICES, HALVED))
    changed = copy.deepcopy(PRICES)
    cast("Any", changed)["dataset"]["pipeline"]["config"] = {"url": "b"}
    (action,) = await apply(memory, document({**changed, "labels": {"team": "alpha"}}, HALVED))
    assert action.mask == ("labels", "dataset.pipeline.config")
    assert [(each.path, each.before, each.after) for each in action.changes] == [
        ("labels.team", None, "alpha"),
        ("dataset.pipeline.config.url", "a", "b"),
    ]
    assert memory.instance("prices").labels[MANAGER] == "m"
    assert (memory.instance("prices").revision, memory.instance("halved").revision) == (2, 1)


async def test_an_omitted_field_returns_to_its_default(memory: Memory) -> None:
    full = {**PRICES, "owner": "alice", "schedule": {"interval": {"minutes": 5}}}
    await apply(memory, document(full))
    (action,) = await apply(memory, document({**PRICES, "schedule": {"manual": {}}}))
    assert action.mask == ("owner", "schedule")
    assert not memory.instance("prices").HasField("schedule")
    assert await plan(memory, document(PRICES)) == []


async def test_a_version_that_is_not_named_stays(memory: Memory) -> None:
    await apply(memory, document(PRICES))
    memory.instance("prices").dataset.pipeline.definition_version = "0.9.0"
    assert await plan(memory, document(PRICES)) == []
    named = copy.deepcopy(PRICES)
    cast("Any", named)["dataset"]["pipeline"]["definition_version"] = "1.0.0"
    (action,) = await plan(memory, document(named))
    assert action.mask == ("dataset.pipeline.definition_version",)


async def test_an_instance_of_another_manager_changes_only_if_adopted(memory: Memory) -> None:
    await apply(memory, document(PRICES, manager="other"))
    # Who wants the same has no quarrel.
    assert await plan(memory, document(PRICES)) == []
    file = document({**PRICES, "owner": "alice"})
    with pytest.raises(ConflictError) as caught:
        await plan(memory, file)
    assert [(each.field, each.reason) for each in caught.value.violations] == [
        ("documents[0].instances[0]", "MANAGED_BY_ANOTHER")
    ]
    await apply(memory, file, adopt=True)
    assert memory.instance("prices").labels[MANAGER] == "m"
    assert await plan(memory, file) == []
    assert await plan(memory, document(manager="other"), prune=True) == []


async def test_an_instance_with_dependants_is_not_pruned(memory: Memory) -> None:
    await apply(memory, document(PRICES), document(HALVED, manager="other"))
    with pytest.raises(ConflictError) as caught:
        await plan(memory, document(), prune=True)
    assert [each.reason for each in caught.value.violations] == ["HAS_DEPENDANTS"]


async def test_the_kind_of_an_instance_cannot_change(memory: Memory) -> None:
    await apply(memory, document(PRICES))
    signal = {"name": "prices", "signal": {"dataset": PRICES["dataset"]}}
    with pytest.raises(ConflictError) as caught:
        await plan(memory, document(signal))
    assert [each.reason for each in caught.value.violations] == ["KIND_CHANGED"]


async def test_definitions_are_published_once_and_move_forward_only(memory: Memory) -> None:
    draft = {**SMOOTH, "state": "draft"}
    assert said(await apply(memory, {"definitions": [draft]})) == ["publish smooth 1.0.0"]
    assert await plan(memory, {"definitions": [draft]}) == []
    assert await plan(memory, {"definitions": [SMOOTH]}) == []
    retired = {"definitions": [{**SMOOTH, "state": "retired"}]}
    assert said(await apply(memory, retired)) == [
        f"{each} smooth 1.0.0" for each in ("activate", "deprecate", "retire")
    ]
    assert await plan(memory, retired) == []
    other = {**SMOOTH, "definition_version": {"version": "1.0.0", "code_ref": "a:C"}}
    for definition, reason in ((draft, "INVALID_STATE"), (other, "VERSION_CONFLICT")):
        with pytest.raises(ConflictError) as caught:
            await plan(memory, {"definitions": [definition]})
        assert [each.reason for each in caught.value.violations] == [reason]


async def test_a_dataset_in_a_universe_is_a_reference_and_an_entity_is_not(memory: Memory) -> None:
    # An entity may be called like the backtest, or like any other instance that is no dataset.
    file = document(traded("raw", "AAPL", "SPY", "halved"), HALVED, PRICES, {**PRICES, "name": "raw"})
    done = said(await apply(memory, file))
    assert done.index("create raw") < done.index("create SPY")
    universe = memory.instance("SPY").backtest.assets.universe
    assert universe == [memory.instance("raw").instance_id, "AAPL", "SPY", "halved"]
    assert await plan(memory, file, prune=True) == []
    exported = export_documents(await read_existing(memory.client))
    (found,) = [each for each in exported[-1]["instances"] if each["name"] == "SPY"]
    assert found["backtest"]["assets"]["universe"] == ["raw", "AAPL", "SPY", "halved"]
    assert await plan(memory, *exported, prune=True) == []
    with pytest.raises(InvalidArgumentError) as refused:
        await plan(memory, document(traded("raw"), HALVED, PRICES), prune=True)
    assert [each.field for each in refused.value.violations] == [
        "documents[0].instances[0].backtest.assets.universe[0]"
    ]
    memory.instance("SPY").labels[MANAGER] = "other"
    with pytest.raises(ConflictError) as caught:
        await plan(memory, document(PRICES, HALVED), prune=True)
    assert [each.reason for each in caught.value.violations] == ["HAS_DEPENDANTS"]


async def test_an_entity_does_not_become_a_dataset_created_later_with_its_name(memory: Memory) -> None:
    await apply(memory, document(traded("AAPL", "SPY"), HALVED, PRICES))
    aapl = {**PRICES, "name": "AAPL"}
    file = document(traded("AAPL", "entity:SPY"), HALVED, PRICES, aapl)
    # The name means the dataset from now on, and that is told.
    assert [each.path for action in await plan(memory, file) for each in action.changes] == [
        "backtest.assets.universe[0]"
    ]
    marked = document(traded("entity:AAPL", "SPY"), HALVED, PRICES, aapl)
    assert said(await apply(memory, marked)) == ["create AAPL"]
    assert memory.instance("SPY").backtest.assets.universe == ["AAPL", "SPY"]
    assert await plan(memory, marked) == []
    exported = export_documents(await read_existing(memory.client))
    (found,) = [each for each in exported[-1]["instances"] if each["name"] == "SPY"]
    assert found["backtest"]["assets"]["universe"] == ["entity:AAPL", "SPY"]
    assert await plan(memory, *exported) == []
    # Nobody reads the dataset yet.
    memory.instance("SPY").labels[MANAGER] = "other"
    assert said(await plan(memory, document(HALVED, PRICES), prune=True)) == ["delete AAPL"]
    memory.instance("SPY").labels[MANAGER] = "m"
    await apply(memory, file)
    assert memory.instance("SPY").backtest.assets.universe == [memory.instance("AAPL").instance_id, "SPY"]
    assert await plan(memory, file) == []


async def test_used_definitions_are_exported_unless_they_are_built_in(memory: Memory) -> None:
    def add(version: str, kind: str = "pipeline", name: str = "prices", **more: Any) -> str:
        content = {"version": version, "code_ref": "worker.builtin.prices:Prices", **more}
        return memory.definitions.add(name, kind, content).definition_version_id

    old, new = add("1.0.0", create_time={"seconds": 1}), add("1.1.0", create_time={"seconds": 2})
    unused = add("1.0.0", name="unused", code_ref="a:B")
    await apply(memory, document(PRICES))
    spec = memory.instance("prices").dataset.pipeline

    async def exported(which: Definitions = Definitions.USED) -> list[str]:
        documents = export_documents(await read_existing(memory.client), definitions=which)
        entries = documents[0].get("definitions", ())
        return [f"{each['name']} {each['definition_version']['version']}" for each in entries]

    spec.definition_version_id = new
    assert await exported() == []
    memory.definitions.all["prices"][1].state = definition_pb2.DEFINITION_STATE_DEPRECATED
    assert await exported() == ["prices 1.1.0"]
    spec.definition_version_id = old  # a service begun anew has only the newest
    assert await exported() == ["prices 1.0.0"]
    spec.definition_version_id = unused
    assert await exported() == ["unused 1.0.0"]
    assert {"prices 1.1.0", "unused 1.0.0", "file 1.0.0"} <= set(await exported(Definitions.ALL))
    assert await exported(Definitions.NONE) == []


async def test_planning_takes_linear_time(memory: Memory) -> None:
    rounds = 0

    class Counted(list[Instance]):
        def __iter__(self) -> Iterator[Instance]:
            nonlocal rounds
            rounds += 1
            return super().__iter__()

    entries = [{**PRICES, "name": f"n{number}"} for number in range(30)]
    await apply(memory, document(*entries))
    existing = await read_existing(memory.client)
    existing = replace(existing, instances=Counted(existing.instances))
    assert make_plan(read_documents([document(*entries)]), existing) == []
    assert rounds < 10


# Any upstreams among the instances before in a hidden order: no cycle, though the file may have any order.
@st.composite
def files(draw: st.DrawFn) -> list[dict[str, Any]]:
    names = draw(st.permutations("abcdef"))[: draw(st.integers(0, 6))]
    instances = []
    for index, name in enumerate(names):
        upstreams = {
            role: draw(st.lists(st.sampled_from(names[:index]), unique=True, max_size=3)) if index else []
            for role in draw(st.lists(st.sampled_from(["input", "prices"]), unique=True))
        }
        config = draw(
            st.dictionaries(st.sampled_from(["x", "y"]), st.integers(0, 2) | st.lists(st.text("ab")))
        )
        instance: dict[str, Any] = {"name": name, "upstreams": upstreams}
        instance["dataset"] = {
            "pipeline": {"definition_name": draw(st.sampled_from(["file", "sql"])), "config": config}
        }
        instance |= draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "owner": st.text("ab", max_size=2),
                    "labels": st.dictionaries(st.text("ab", min_size=1), st.text("ab")),
                    "schedule": st.sampled_from([{"manual": {}}, {"interval": {"minutes": 5}}]),
                    "freshness_policy": st.sampled_from(
                        [{"frequency": "daily"}, {"frequency": "weekly", "grace": 1.5}]
                    ),
                    "auto_refresh": st.sampled_from(
                        [{"mode": "off"}, {"mode": "all_upstreams", "min_interval": 60}]
                    ),
                },
            )
        )
        instances.append(instance)
    return draw(st.permutations(instances))


@settings(deadline=None, max_examples=100)
@given(st.lists(files(), min_size=1, max_size=3))
async def test_applied_nothing_is_left_to_do_and_the_order_respects_references(
    versions: list[list[dict[str, Any]]],
) -> None:
    memory = Memory("file", "sql")
    for instances in versions:
        file = document(*instances)
        # The memory refuses an unknown upstream, a deletion of what is read, and a cycle at any moment.
        await apply(memory, file, prune=True)
        assert await plan(memory, file, prune=True) == []
        assert set(memory.live()) == {each["name"] for each in instances}
    exported = export_documents(await read_existing(memory.client))
    assert await plan(memory, *yaml.safe_load_all(yaml.safe_dump_all(exported)), prune=True) == []
