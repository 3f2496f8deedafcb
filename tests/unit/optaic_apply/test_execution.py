"""Doing what a plan says, and checking it in dry runs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import grpc
import pytest

from optaic.apply.documents import MANAGER, read_documents
from optaic.apply.execution import execute, read_existing
from optaic.apply.plan import make_plan
from optaic.errors import (
    ConflictError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidConfigError,
    UnavailableError,
    Violation,
)
from optaic.instance.v1 import instance_pb2
from optaic.instance.v1.instance_service_pb2 import ChangeVerdict
from support.apply import HALVED, PRICES, SMOOTH, Memory, apply, document, done, plan, said, traded


async def test_a_dry_run_changes_nothing(memory: Memory) -> None:
    file = document(PRICES, HALVED, definitions=[SMOOTH])
    assert len(await apply(memory, file, dry_run=True)) == 4
    assert memory.live() == {}
    assert said(await apply(memory, file)) == said(await apply(Memory("file"), file, dry_run=True))


async def test_a_dry_run_checks_deletions_against_the_instances_that_stay(memory: Memory) -> None:
    other = {**HALVED, "name": "other"}
    await apply(memory, document(PRICES, HALVED, other))
    # One reader goes, the other reads something else by then.
    freed = document({**other, "upstreams": {"input": "more"}}, {**PRICES, "name": "more"})
    before = copy.deepcopy(memory.live())
    assert said(await apply(memory, freed, prune=True, dry_run=True))[-2:] == [
        "delete halved",
        "delete prices",
    ]
    assert memory.live() == before
    # A reader in a project that no document speaks of stays.
    stranger = copy.deepcopy(memory.instance("halved"))
    stranger.instance_id, stranger.project_id, stranger.name = "stranger", "elsewhere", "stranger"
    memory.instances.by_id["stranger"] = stranger
    with pytest.raises(FailedPreconditionError) as caught:
        await apply(memory, freed, prune=True, dry_run=True)
    assert [each.subject for each in caught.value.blocking] == ["stranger"]


async def test_a_dry_run_refuses_to_delete_an_instance_that_has_changed_since(memory: Memory) -> None:
    await apply(memory, document(PRICES))
    existing = await read_existing(memory.client)
    actions = make_plan(read_documents([document()]), copy.deepcopy(existing), prune=True)
    memory.instance("prices").etag = "r2"
    with pytest.raises(ConflictError):
        [each async for each in execute(memory.client, actions, existing, dry_run=True)]


async def test_a_dry_run_checks_every_step_of_a_definition(memory: Memory) -> None:
    await apply(memory, {"definitions": [{**SMOOTH, "state": "draft"}]})
    found = await done(memory, {"definitions": [{**SMOOTH, "state": "retired"}]}, dry_run=True)
    assert [(str(each.action.verb), each.is_checked) for each in found] == [
        ("activate", True),
        ("deprecate", True),
        ("retire", True),
    ]
    assert await plan(memory, {"definitions": [{**SMOOTH, "state": "draft"}]}) == []


async def test_a_dry_run_checks_instances_against_versions_that_it_would_publish(memory: Memory) -> None:
    second = {**SMOOTH, "name": "rough", "state": "deprecated"}
    reader = {"name": "x", "dataset": {"pipeline": {"definition_name": "rough"}}}
    actions = await apply(memory, document(reader, definitions=[SMOOTH, second]), dry_run=True)
    assert said(actions) == [
        "create p", "publish smooth 1.0.0", "publish rough 1.0.0", "create x", "deprecate rough 1.0.0",
    ]  # fmt: skip


async def test_a_dry_run_checks_a_universe_whose_dataset_does_not_exist_yet(memory: Memory) -> None:
    await apply(memory, document(PRICES, HALVED))
    file = document(PRICES, HALVED, {**PRICES, "name": "raw"}, traded("raw", "AAPL"))
    found = await done(memory, file, dry_run=True)
    assert [(each.action.name, each.is_checked) for each in found] == [("raw", True), ("SPY", True)]


NEWER = {**SMOOTH, "definition_version": {"version": "1.1.0", "code_ref": "a:C"}}
FOLLOWING = {"name": "x", "dataset": {"pipeline": {"definition_name": "smooth", "track_newest": True}}}


@pytest.mark.parametrize("state", ["active", "draft"])
async def test_a_version_and_the_instances_that_track_it_change_together(memory: Memory, state: str) -> None:
    other = {**FOLLOWING, "name": "y"}
    await apply(memory, document(FOLLOWING, other, definitions=[SMOOTH]))
    if state == "draft":
        await apply(memory, {"definitions": [{**NEWER, "state": "draft"}]})
    # Both have a new revision, by the publication, when the change and the deletion come.
    file = document({**FOLLOWING, "owner": "alice"}, definitions=[{**NEWER, "state": "active"}])
    assert said(await apply(memory, file, prune=True))[1:] == ["change x", "delete y"]
    assert memory.instance("x").owner == "alice"
    assert await plan(memory, file, prune=True) == []


async def test_a_concurrent_change_is_not_overwritten(memory: Memory) -> None:
    await apply(memory, document(FOLLOWING, definitions=[SMOOTH]))
    existing = copy.deepcopy(await read_existing(memory.client))
    for changes in ({"owner": "bob"}, {"labels": {MANAGER: "other"}}):
        number = memory.instance("x").revision
        file = document({**FOLLOWING, "description": "d"}, definitions=[{**NEWER, "definition_version": {
            "version": f"1.{number}.0", "code_ref": "a:C"}}])  # fmt: skip
        actions = make_plan(read_documents([file]), existing)
        memory.instances.touch(memory.instance("x"), **changes)
        with pytest.raises(ConflictError) as caught:
            [each async for each in execute(memory.client, actions, existing)]
        assert caught.value.reason == "ETAG_MISMATCH"
        assert not memory.instance("x").description


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("projects", [("a", "z"), ("z", "a")])
async def test_projects_that_read_each_other_are_pruned_together(
    memory: Memory, projects: tuple[str, str], dry_run: bool
) -> None:
    for project in projects:
        await memory.projects.create(project)
    await apply(memory, document(PRICES, project="z"))
    prices = memory.instance("prices").instance_id
    await apply(memory, document({**HALVED, "upstreams": {"input": prices}}, project="a"))
    empty = [document(project=each) for each in projects]
    assert said(await apply(memory, *empty, prune=True, dry_run=dry_run)) == [
        "delete halved",
        "delete prices",
    ]
    # Where the reader stays, nothing is begun.
    if dry_run:
        with pytest.raises(ConflictError) as caught:
            await plan(memory, document(project="z"), document(project="a", manager="other"), prune=True)
        assert [each.reason for each in caught.value.violations] == ["HAS_DEPENDANTS"]


def _refuse(memory: Memory, monkeypatch: pytest.MonkeyPatch, *fields: str) -> None:
    """Refuse every instance whose name begins with an n, for some of its fields."""
    kind: Any = type(memory.instances)
    create = kind.create

    async def refusing(self: Any, **values: Any) -> Any:
        if values["name"].startswith("n"):
            found = [Violation(f"instance.{field}", "is wrong", "INVALID_SPEC") for field in fields]
            code = grpc.StatusCode.INVALID_ARGUMENT
            raise InvalidConfigError(code, "INVALID_CONFIG", "the configuration breaks rules", found)
        return await create(self, **values)

    monkeypatch.setattr(kind, "create", refusing)


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("dataset.pipeline.config.url", "dataset.pipeline.config.url"),
        ("upstream_refs[1].resource_id", "upstreams.prices"),
        ("upstream_refs", "upstreams"),
    ],
)
async def test_a_refusal_names_the_instance_and_the_place_in_the_file(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, field: str, path: str
) -> None:
    _refuse(memory, monkeypatch, field)
    upstreams = {"input": "a", "prices": "a"}
    with pytest.raises(InvalidConfigError) as caught:
        await apply(
            memory, document({**PRICES, "name": "n", "upstreams": upstreams}, {**PRICES, "name": "a"})
        )
    assert [each.field for each in caught.value.violations] == [f"documents[0].instances[0].{path}"]
    assert "instance n (documents[0].instances[0])" in str(caught.value)
    # Nothing of a plan is done when any of it would be refused.
    assert memory.live() == {}


async def test_a_dry_run_reports_all_refusals_together(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await apply(memory, document(PRICES))
    names = ("n1", "a", "n2", "n3")
    file = document(*({**PRICES, "name": name} for name in names), {**PRICES, "owner": "alice"})
    existing = copy.deepcopy(await read_existing(memory.client))
    actions = make_plan(read_documents([file]), existing)
    memory.instances.touch(memory.instance("prices"))
    _refuse(memory, monkeypatch, "name", "dataset")
    found = []
    with pytest.raises(ConflictError) as caught:  # noqa: PT012 - those before it count
        async for each in execute(memory.client, actions, existing, dry_run=True):
            found.append(each.action.name)  # noqa: PERF401 - it raises
    assert found == ["a"]
    assert caught.value.reason == "APPLY_CONFLICT"
    assert sorted(each.field for each in caught.value.violations) == [
        *(f"documents[0].instances[{n}].{field}" for n in (0, 2, 3) for field in ("dataset", "name")),
        "documents[0].instances[4]",
    ]


async def test_a_dry_run_ends_if_the_service_does_not_answer(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    async def absent(changes: Any) -> None:
        calls.append(changes)
        raise UnavailableError(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", "nobody there")

    monkeypatch.setattr(memory.instances, "rehearse", absent)
    await memory.projects.create("p")
    with pytest.raises(UnavailableError):
        await apply(memory, document(PRICES, {**PRICES, "name": "more"}), dry_run=True)
    assert len(calls) == 1


def _macro(name: str, expression: str) -> dict[str, Any]:
    macro = {"parameters": ["x"], "expression": expression}
    return {"name": name, "kind": "op_macro", "definition_version": {"version": "1.0.0", "op_macro": macro}}


def _expression(name: str, expression: str) -> dict[str, Any]:
    # Labels, owners and the like name nothing.
    pipeline = {"definition_name": "file", "config": {"steps": [{"url": expression}]}}
    return {"name": name, "dataset": {"pipeline": pipeline}, "owner": "HALF", "labels": {"team": "A"}}


async def test_a_dry_run_leaves_out_nothing(memory: Memory) -> None:
    definitions = [
        SMOOTH,
        {**SMOOTH, "name": "rough"},
        _macro("HALF", "x / 2"),
        _macro("A", "HALFTIME(x)"),
        _macro("QUARTER", "half(\nHALF(x))"),
    ]
    await memory.projects.create("p")
    instances = [_expression("b", "AHALF(1)"), _expression("c", "1 +\nHALF(close)"), _expression("d", "A")]
    found = await done(memory, document(*instances, definitions=definitions), dry_run=True)
    assert all(each.is_checked for each in found)


async def test_a_dry_run_checks_instances_of_a_draft_that_becomes_active(memory: Memory) -> None:
    await apply(memory, document(definitions=[{**SMOOTH, "state": "draft"}]))
    reader = {"name": "x", "dataset": {"pipeline": {"definition_name": "smooth"}}}
    file = document(reader, definitions=[{**SMOOTH, "state": "active"}])
    found = await done(memory, file, dry_run=True)
    assert [(each.action.name, each.is_checked) for each in found] == [("smooth 1.0.0", True), ("x", True)]


async def test_an_absent_system_is_waited_for_only_once(memory: Memory) -> None:
    def entries(prefix: str) -> list[dict[str, Any]]:
        return [{**PRICES, "name": f"{prefix}{number}"} for number in range(10)]

    await apply(memory, document(*entries("a")))
    assert memory.instances.timeouts == [5.0] * 10
    memory.instances.timeouts.clear()
    memory.instances.state = instance_pb2.INSTANCE_STATE_PROVISIONING
    await apply(memory, document(*entries("b")))
    assert sum(each or 30 for each in memory.instances.timeouts) < 20


@pytest.mark.parametrize("slow", [1, 2])
async def test_a_creation_that_is_not_answered_in_time_is_asked_for_again(memory: Memory, slow: int) -> None:
    memory.instances.slow = slow
    file = document(PRICES, HALVED)
    assert said(await apply(memory, file)) == ["create p", "create prices", "create halved"]
    assert len(memory.instances.by_id) == 2
    assert await plan(memory, file) == []
    memory.instances.slow = 9
    with pytest.raises(DeadlineExceededError):
        await apply(memory, document(PRICES, HALVED, {**PRICES, "name": "more"}))


@pytest.mark.parametrize("reason", ["REHEARSAL_TOO_LONG", "RESOURCE_EXHAUSTED"])
async def test_a_plan_that_is_too_long_to_check_is_applied_with_a_warning(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    async def refuse(_: Any) -> None:
        raise InvalidConfigError(grpc.StatusCode.INVALID_ARGUMENT, reason, "too much")

    monkeypatch.setattr(memory.instances, "rehearse", refuse)
    with pytest.raises(InvalidConfigError):
        await apply(memory, document(PRICES), dry_run=True)
    existing = await read_existing(memory.client)
    actions = make_plan(read_documents([document(PRICES)]), existing)
    made = [each async for each in execute(memory.client, actions, existing)]
    assert set(memory.live()) == {"prices"}
    # Who reads the answer knows that a refusal would have stopped it half-way.
    (warning,) = [text for each in made for text in each.warnings]
    assert "too long to check completely before" in warning


async def test_steps_without_time_for_a_check_are_shown_as_not_checked(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def judge_some(changes: Sequence[Any]) -> list[ChangeVerdict]:
        return [ChangeVerdict(), *[ChangeVerdict(is_not_judged=True) for _ in changes[1:]]]

    monkeypatch.setattr(memory.instances, "rehearse", judge_some)
    file = read_documents([document(PRICES, HALVED)])
    existing = await read_existing(memory.client)
    actions = make_plan(file, existing)
    tried = [each async for each in execute(memory.client, actions, existing, dry_run=True)]
    assert [each.is_checked for each in tried] == [True, False, False]
    assert ["checking the steps before it took too long" in str(each.warnings) for each in tried] == [
        not each.is_checked for each in tried
    ]
    assert memory.live() == {}
    made = [each async for each in execute(memory.client, actions, existing)]
    (warning,) = [text for each in made for text in each.warnings]
    assert "the last 2 of 3 steps were not checked" in warning
    assert set(memory.live()) == {"prices", "halved"}


async def test_the_names_of_upstreams_that_the_service_keeps_are_no_change(memory: Memory) -> None:
    file = document(PRICES, HALVED)
    await apply(memory, file)
    (ref,) = memory.instance("halved").upstream_refs
    ref.name, ref.bound_name = "prices", "as-it-was-called"
    assert await plan(memory, file) == []
