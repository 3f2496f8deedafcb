"""Refreshes that compute only what their inputs have changed, and the reasons for which they compute everything."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from optaic.plugins import ChangedDates, DateRange, Mode, Pipeline, PipelineContext
from optaic.run.v1 import run_pb2
from support.plugin_packages import install_code
from worker.builtin.delta_store import DeltaStore
from worker.builtin.simple_accessor import SimpleAccessor
from worker.code_statement import hash_code
from worker.computing import Output, compute
from worker.increments import check_code, find_changed_dates
from worker.locations import FlowLocation
from worker.recipe import Component, Input, PipelineRecipe, StoredData

STORE = Component("worker.builtin.delta_store:DeltaStore", {})
SIMPLE = Component("worker.builtin.simple_accessor:SimpleAccessor", {})
FIRST = dt.date(2024, 1, 1)


class DerivedAccessor(SimpleAccessor):
    """An accessor that says nothing of itself."""


class Asked(Pipeline):
    """A pipeline that tells which dates have changed."""

    def run(self, context: PipelineContext) -> pl.DataFrame:
        context.report("asked", str(context.changed))
        return context.tables("input")[0].frame


def day(number: int) -> dt.date:
    return FIRST + dt.timedelta(days=number)


def prices(days: int, shift: float = 0.0) -> pl.DataFrame:
    rows = [(day(n), entity, n + ord(entity) / 7 + shift) for n in range(days) for entity in "AB"]
    return pl.DataFrame(rows, {"date": pl.Date, "entity": pl.String, "close": pl.Float64}, orient="row")


@pytest.fixture(autouse=True)
def _registered(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    install_code(
        monkeypatch, tmp_path_factory.mktemp("site"), f"{__name__}:DerivedAccessor", f"{__name__}:Asked"
    )


class Derived:
    """A dataset that is computed from prices, whose versions say which dates they change."""

    def __init__(self, folder: Path, expression: str = "MEAN(close, 3)") -> None:
        self.folder, self.versions = folder, 0
        self.pipeline = Component("worker.builtin.derivation:ExpressionPipeline", {"expression": expression})
        self.base: StoredData | None = None

    def recipe(self, table: pl.DataFrame, changed: ChangedDates | None = None) -> PipelineRecipe:
        """Return the recipe of a refresh that reads a new version of the prices."""
        self.versions += 1
        uri = str(self.folder / f"prices {self.versions}")
        stored = DeltaStore().write(table, None, uri)
        data = StoredData(STORE, SIMPLE, uri, stored.physical_version)
        given = Input(
            "input", "prices", "prices", self.versions, stored.digest, data, changed=changed or ChangedDates()
        )
        return PipelineRecipe(
            pipeline=self.pipeline, store=STORE, accessor=SIMPLE, inputs=(given,), mode=Mode.INCREMENTAL,
            date_range=DateRange(), timezone="UTC", data_date=None, base=self.base, contract=None, macros={}, operators={},
            output_schema={}, guardrails=(), readers_hash="", base_readers_hash="", max_deleted_share=None,
            allow_deletion=False, allows_increment=changed is not None,
        )  # fmt: skip

    def refresh(self, recipe: PipelineRecipe) -> Output:
        """Compute the next version."""
        location = FlowLocation(str(self.folder / "data"), "acme", "derived", "refresh")
        output = compute(recipe, location, "run", lambda *_: None)
        self.base = StoredData(STORE, SIMPLE, output.uri, output.physical_version, digest=output.digest)
        return output


@pytest.fixture
def derived(tmp_path: Path) -> Derived:
    return Derived(tmp_path)


@pytest.mark.parametrize(
    ("later", "changed", "rows"),
    [
        (prices(10), ChangedDates(day(9), day(9)), 2),
        (
            pl.concat([prices(4), prices(9, 1.0).filter(pl.col("date") >= day(4))]),
            ChangedDates(day(4), day(4)),
            10,
        ),
        (prices(9), ChangedDates(), 0),
        (prices(6), ChangedDates(day(6), day(8)), 0),
    ],
    ids=["a date appended", "dates corrected", "nothing changed", "dates gone"],
)
def test_the_digest_is_that_of_a_full_run(
    derived: Derived, tmp_path: Path, later: pl.DataFrame, changed: ChangedDates, rows: int
) -> None:
    derived.refresh(derived.recipe(prices(9)))
    output = derived.refresh(derived.recipe(later, changed))
    full = Derived(tmp_path / "full")
    assert output.digest == full.refresh(full.recipe(later)).digest
    assert (output.metrics["rows_fetched"], output.metrics["rows"]) == (rows, later.height)
    assert "computed_from" in output.metrics
    assert "full_because" not in output.metrics
    if changed.start is not None:
        assert output.changed is not None
        assert output.changed.start == changed.start


@pytest.mark.parametrize(
    ("expression", "dates", "affected"),
    [
        ("RANK(close)", DateRange(day(3), day(6)), (day(4), day(5))),
        ("MEAN(close, 3)", DateRange(day(4), None), (day(4), day(8))),
    ],
)
def test_a_range_that_has_all_affected_dates_gives_the_digest_of_a_full_run(
    tmp_path: Path, expression: str, dates: DateRange, affected: tuple[dt.date, dt.date]
) -> None:
    is_changed = pl.col("date").is_between(day(4), day(5))
    later = pl.concat([prices(9).filter(~is_changed), prices(9, 1.0).filter(is_changed)])
    derived, full = Derived(tmp_path, expression), Derived(tmp_path / "full", expression)
    derived.refresh(derived.recipe(prices(9)))
    recipe = derived.recipe(later, ChangedDates(day(4), day(5)))
    output = derived.refresh(replace(recipe, date_range=dates))
    assert output.affected == ChangedDates(*affected)
    assert output.metrics["affected_dates"] == f"{affected[0]} to {affected[1]}"
    assert output.digest == full.refresh(full.recipe(later)).digest
    # And the next run builds on it.
    following = derived.refresh(derived.recipe(prices(10), ChangedDates(day(4), day(9))))
    assert following.metrics["computed_from"] == str(day(4))
    assert following.digest == full.refresh(full.recipe(prices(10))).digest


def test_a_range_says_why_any_date_may_be_affected(derived: Derived) -> None:
    derived.refresh(derived.recipe(prices(9)))
    dates = DateRange(day(3), None)
    right = replace(derived.recipe(prices(10), ChangedDates(day(9), day(9))), date_range=dates)
    for because, recipe in {
        "it is not recorded": replace(derived.recipe(prices(10)), date_range=dates),
        "mode FULL was requested": replace(right, mode=Mode.FULL),
        "the expression depends on all": replace(
            right, pipeline=replace(right.pipeline, config={"expression": "EMA(close, 3)"})
        ),
    }.items():
        output = derived.refresh(recipe)
        assert output.affected is None
        assert str(output.metrics["affected_dates"]).startswith(f"any: {because}")
    silent = Derived(derived.folder / "silent")
    silent.pipeline = Component(f"{__name__}:Asked", {})
    silent.refresh(silent.recipe(prices(9)))
    recipe = silent.recipe(prices(10), ChangedDates(day(9), day(9)))
    output = silent.refresh(replace(recipe, date_range=dates))
    assert str(output.metrics["affected_dates"]).startswith("any: the pipeline does not say")


def test_pipelines_see_which_dates_have_changed(derived: Derived) -> None:
    derived.pipeline = Component(f"{__name__}:Asked", {})
    assert derived.refresh(derived.recipe(prices(9))).metrics["asked"] == "None"
    changed = ChangedDates(day(3), day(5))
    assert derived.refresh(derived.recipe(prices(9, 1.0), changed)).metrics["asked"] == str(changed)


def test_every_reason_to_compute_everything_is_said(derived: Derived) -> None:
    first = derived.refresh(derived.recipe(prices(9)))
    assert first.metrics["full_because"] == "it is not recorded in which dates the inputs have changed"
    right = derived.recipe(prices(10), ChangedDates(day(9), day(9)))
    assert isinstance(find_changed_dates(right, first.uri), ChangedDates)
    (given,) = right.inputs
    assert right.base is not None
    other = replace(given.data, accessor=Component(f"{__name__}:DerivedAccessor", {}))
    wrong = {
        "mode FULL was requested": replace(right, mode=Mode.FULL),
        "the version before is in another store": replace(
            right, base=replace(right.base, timezone="Asia/Tokyo")
        ),
        "the accessor of prices may read other rows": replace(right, inputs=(replace(given, data=other),)),
        "because lineage says so": replace(right, full_because="because lineage says so"),
    }
    for because, recipe in wrong.items():
        found = find_changed_dates(recipe, first.uri)
        assert isinstance(found, str)
        assert found.startswith(because)
    assert isinstance(find_changed_dates(right, "file:///elsewhere"), str)


@pytest.mark.parametrize(
    ("before", "now", "is_allowed"), [("a", "a", True), ("a", "b", False), ("", "a", False), ("", "", False)]
)
def test_other_code_computes_everything(derived: Derived, before: str, now: str, *, is_allowed: bool) -> None:
    recipe = check_code(derived.recipe(prices(1), ChangedDates()), before, now)
    assert recipe.allows_increment is is_allowed
    assert bool(recipe.full_because) is not is_allowed


def test_the_code_hash_is_over_all_plugins_and_unknown_where_one_is() -> None:
    one, two = (run_pb2.PluginCode(code_ref=name, hash=name) for name in ("a:A", "b:B"))
    assert hash_code([one, two]) == hash_code([two, one, one]) != hash_code([one])
    assert hash_code([one, run_pb2.PluginCode(code_ref="c:C")]) == ""
