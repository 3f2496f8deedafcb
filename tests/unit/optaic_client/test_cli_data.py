"""`optaic data read`: formats, files that appear whole, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from optaic.cli.exits import Exit
from support.command_line import invoke
from support.fake_services import FakeServices

FRAME = pl.DataFrame({"date": ["2026-01-01", "2026-01-02"], "value": [1.5, float("nan")]})


@pytest.fixture
def frame(optaic: FakeServices, monkeypatch: pytest.MonkeyPatch) -> FakeServices:
    """Every read answers with the same table."""

    async def read(*_: object, **__: object) -> pl.DataFrame:
        return FRAME

    monkeypatch.setattr("optaic.client.data.Data.read", read)
    return optaic


@pytest.mark.usefixtures("frame")
def test_the_last_rows_are_printed_and_the_others_counted() -> None:
    printed = invoke("data", "read", "prices", "--limit", "1")
    assert "2026-01-02" in printed.stdout
    assert "2026-01-01" not in printed.stdout
    assert "the last 1 of 2 rows" in printed.stderr
    assert invoke("data", "read", "prices", "-o", "csv").stdout.splitlines()[0] == "date,value"
    rows = json.loads(invoke("data", "read", "prices", "-o", "json").stdout)
    assert [row["value"] for row in rows] == [1.5, None]


@pytest.mark.usefixtures("frame")
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".json", ".arrow"])
def test_a_file_has_all_rows_and_the_mode_of_a_new_file(tmp_path: Path, suffix: str) -> None:
    file, plain = tmp_path / f"t{suffix}", tmp_path / "plain"
    plain.touch()
    invoke("data", "read", "prices", "--limit", "1", "-f", str(file))
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        ".parquet": pl.read_parquet,
        ".csv": pl.read_csv,
        ".json": pl.read_json,
        ".arrow": pl.read_ipc,
    }
    assert readers[suffix](file).height == 2
    assert file.stat().st_mode == plain.stat().st_mode
    assert {each.name for each in tmp_path.iterdir()} == {file.name, "plain"}


def test_what_cannot_be_written_leaves_the_old_file(
    frame: FakeServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "t.csv"
    file.write_text("before")
    monkeypatch.setattr(f"{__name__}.FRAME", pl.DataFrame({"list": [[1]]}))
    assert "choose another one" in invoke("data", "read", "prices", "-f", str(file), status=Exit.ERROR).stderr
    assert "choose another one" in invoke("data", "read", "prices", "-o", "csv", status=Exit.ERROR).stderr
    assert file.read_text() == "before"
    assert len(list(tmp_path.glob("t*"))) == 1
    seen = len(frame.seen)
    refused = invoke("data", "read", "prices", "-f", str(tmp_path / "no" / "t.csv"), status=Exit.USAGE)
    assert "there is no folder" in refused.stderr
    assert len(frame.seen) == seen  # nothing was asked before
