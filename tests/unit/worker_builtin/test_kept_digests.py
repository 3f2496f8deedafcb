"""The digests of unchanged days are kept beside a Delta table, and trusted only if they are of its files."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import polars as pl
import pytest

from worker.builtin.day_digests import DayDigests
from worker.builtin.delta_store import DeltaStore
from worker.builtin.digest import canonicalize

FIRST = dt.date(2024, 1, 1)
KEYS = ["date", "entity"]


def day(number: int) -> dt.date:
    return FIRST + dt.timedelta(days=number)


def prices(days: int, shift: float = 0.0) -> pl.DataFrame:
    rows = [(day(n), entity, n + ord(entity) / 7 + shift) for n in range(days) for entity in "AB"]
    return pl.DataFrame(rows, {"date": pl.Date, "entity": pl.String, "close": pl.Float64}, orient="row")


@pytest.fixture
def digested(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of rows whose digests were computed since the list was cleared."""
    heights: list[int] = []
    compute = DayDigests.of

    def count(canonical: pl.DataFrame) -> DayDigests:
        heights.append(canonical.height)
        return compute(canonical)

    monkeypatch.setattr(DayDigests, "of", count)
    return heights


def _digest(table: pl.DataFrame) -> str:
    return DayDigests.of(canonicalize(table, KEYS)).digest


def test_only_what_is_written_is_digested_version_after_version(tmp_path: Path, digested: list[int]) -> None:
    uri = str(tmp_path / "a table")
    version = DeltaStore().write(prices(30), None, uri).physical_version
    for days in (31, 32, 33):
        digested.clear()
        stored = DeltaStore().write_part(prices(days), day(days - 1), version, uri)
        assert sum(digested) == 2, "the new day"
        assert stored.digest == _digest(prices(days))
        version = stored.physical_version
    corrected = pl.concat([prices(31), prices(34, 1.0).slice(62)])
    digested.clear()
    stored = DeltaStore().write_part(corrected, day(31), version, uri)
    assert sum(digested) == 6 + 4, "three days, and the two that were there"
    assert stored.digest == _digest(corrected)
    kept = [path.name for path in (tmp_path / "a table" / "_days").iterdir()]
    assert kept == [f"{stored.physical_version}.json"], "those of older versions are gone"
    assert DeltaStore().read(uri, stored.physical_version).equals(corrected)


@pytest.mark.parametrize(
    "damage", ["absent", "cut", "of other files", "of other columns", "of a later format"]
)
def test_digests_that_are_not_those_of_the_version_are_computed_again(
    tmp_path: Path, digested: list[int], damage: str
) -> None:
    uri = str(tmp_path / "table")
    version = DeltaStore().write(prices(30), None, uri).physical_version
    path = tmp_path / "table" / "_days" / f"{version}.json"
    content = json.loads(path.read_text())
    if damage == "absent":
        path.unlink()
    elif damage == "cut":
        path.write_text(path.read_text()[:-20])
    else:
        field = {"of other files": "files", "of other columns": "schema", "of a later format": "format"}[
            damage
        ]
        path.write_text(json.dumps({**content, field: "other"}))
    digested.clear()
    stored = DeltaStore().write_part(prices(31), day(30), version, uri)
    assert sum(digested) == 60 + 2
    assert stored.digest == _digest(prices(31))


def test_instants_keep_no_digests(tmp_path: Path) -> None:
    table = prices(3).with_columns(pl.col("date").cast(pl.Datetime("us", "UTC")))
    DeltaStore().write(table, None, str(tmp_path / "table"))
    assert not (tmp_path / "table" / "_days").exists()
