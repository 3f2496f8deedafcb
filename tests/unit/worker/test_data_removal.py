"""The data of an instance that is gone is removed, all of it, and nothing that is anybody else's; stores are real."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from optaic.plugins import CannotRemove, Store, StoredVersion, StoreUnavailable
from support.plugin_packages import install_code
from worker.builtin.delta_store import DeltaStore
from worker.builtin.parquet_store import ParquetStore
from worker.data_removal import Removal, check_place, remove_by_stores, remove_rest
from worker.locations import FlowLocation
from worker.recipe import Component

TENANT = "acme"
GONE, ALIVE = (str(uuid.UUID(int=number)) for number in (1, 2))
STORES = {
    "delta": Component("worker.builtin.delta_store:DeltaStore", {}),
    "parquet": Component("worker.builtin.parquet_store:ParquetStore", {"compression": "zstd"}),
}
FORGETFUL = Component(f"{__name__}:Forgetful", {}, definition_name="forgetful", definition_version="1.0.0")


class Forgetful(Store):
    """A store of an earlier release: it says nothing of removals."""

    def write(self, table: pl.DataFrame, base_version: str | None, uri: str) -> StoredVersion:
        """Is not called."""
        raise NotImplementedError

    def read(self, uri: str, physical_version: str) -> pl.DataFrame:
        """Is not called."""
        raise NotImplementedError


@pytest.fixture(autouse=True)
def _registered(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    install_code(monkeypatch, tmp_path_factory.mktemp("site"), FORGETFUL.code_ref, "nowhere:Store")


def table(close: float) -> pl.DataFrame:
    return pl.DataFrame({"date": [dt.date(2024, 1, 2)], "entity": ["AAPL"], "close": [close]})


def fill(root: Path | str, instance_id: str, *stores: str, tenant_id: str = TENANT) -> FlowLocation:
    """Keep two versions of a dataset in each store, and what a run has written beside."""
    location = FlowLocation(str(root), tenant_id, instance_id, "refresh")
    for name in stores:
        store = {"delta": DeltaStore, "parquet": ParquetStore}[name]()
        first = store.write(table(1.0), None, location.data_uri)
        store.write(table(2.0), first.physical_version, location.data_uri)
    location.write_output(str(uuid.UUID(int=9)), "traceback.txt", "it failed")
    return location


def remove_data(removal: Removal) -> None:
    """Remove as the worker and its child do, one after the other."""
    check_place(removal)
    remove_by_stores(removal)
    remove_rest(removal)


def removal(
    root: Path | str, *stores: Component, instance_id: str = GONE, has_output: bool = True
) -> Removal:
    return Removal(str(root), TENANT, instance_id, stores, has_output)


def content(root: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", STORES)
def test_every_version_and_output_is_removed_and_other_instances_keep_theirs(
    tmp_path: Path, name: str
) -> None:
    fill(tmp_path, ALIVE, name)
    fill(tmp_path, GONE, name, tenant_id="other")
    source = tmp_path / "prices.csv"
    source.write_text("date,close\n", encoding="utf-8")
    kept = content(tmp_path)
    fill(tmp_path, GONE, name)
    remove_data(removal(tmp_path, STORES[name]))
    assert content(tmp_path) == kept
    assert not (tmp_path / TENANT / GONE).exists()
    remove_data(removal(tmp_path, STORES[name]))  # whoever died before saying that it was done
    assert content(tmp_path) == kept


@pytest.mark.parametrize("name", STORES)
def test_a_removal_that_has_begun_is_finished(tmp_path: Path, name: str) -> None:
    location = fill(tmp_path, GONE, name)
    files = sorted(path for path in Path(location.data_uri).rglob("*") if path.is_file())
    for path in files[::2]:  # killed in the middle
        path.unlink()
    shutil.rmtree(Path(location.data_uri).parent / "runs")
    remove_data(removal(tmp_path, STORES[name]))
    assert not (tmp_path / TENANT / GONE).exists()


def test_a_dataset_that_changed_its_store_leaves_nothing_in_either(tmp_path: Path) -> None:
    fill(tmp_path, GONE, "delta", "parquet")
    remove_data(removal(tmp_path, STORES["delta"], STORES["parquet"]))
    assert not (tmp_path / TENANT / GONE).exists()


def test_a_backtest_has_outputs_and_no_store(tmp_path: Path) -> None:
    location = FlowLocation(str(tmp_path), TENANT, GONE, "backtest")
    location.write_output(str(uuid.UUID(int=9)), "trades.parquet", "x")
    remove_data(removal(tmp_path, has_output=False))
    assert not (tmp_path / TENANT / GONE).exists()


def test_a_data_root_may_be_a_uri(tmp_path: Path) -> None:
    root = f"file://{tmp_path}"
    fill(root, GONE, "parquet")
    remove_data(removal(root, STORES["parquet"]))
    assert list((tmp_path / TENANT).iterdir()) == []


def test_a_store_that_cannot_remove_keeps_its_data_and_reports_it(tmp_path: Path) -> None:
    location = fill(tmp_path, GONE, "delta")
    before = content(Path(location.data_uri))
    with pytest.raises(CannotRemove, match="Forgetful cannot remove the data at"):
        remove_data(removal(tmp_path, FORGETFUL))
    assert content(Path(location.data_uri)) == before
    assert not (Path(location.data_uri).parent / "runs").exists()  # the worker's own outputs go


def test_a_store_without_data_has_nothing_to_remove(tmp_path: Path) -> None:
    remove_data(removal(tmp_path, FORGETFUL, has_output=False))
    with pytest.raises(CannotRemove):  # it may keep it anywhere
        remove_data(removal(tmp_path, FORGETFUL, has_output=True))


def test_a_store_that_is_not_installed_is_named(tmp_path: Path) -> None:
    missing = Component("nowhere:Store", {}, definition_name="vault", definition_version="2.0.0")
    location = fill(tmp_path, GONE, "delta")
    with pytest.raises(CannotRemove, match=r"vault 2\.0\.0: PluginNotFound"):
        remove_data(removal(tmp_path, missing))
    assert Path(location.data_uri).exists()


def test_the_data_of_a_link_is_not_followed(tmp_path: Path) -> None:
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "root"
    location = fill(root, GONE, "delta")
    Path(location.data_uri).rename(elsewhere)
    Path(location.data_uri).symlink_to(elsewhere)
    before = content(elsewhere)
    with pytest.raises(CannotRemove, match=r"leads to .*elsewhere"):
        remove_data(removal(root, STORES["delta"]))
    assert content(elsewhere) == before


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_folder_outside_of_the_data_root_is_not_removed(tmp_path: Path, depth: int) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    fill(root, GONE, "delta")
    moved = root.joinpath(*(TENANT, GONE, "refresh")[: depth + 1])
    moved.rename(elsewhere)
    moved.symlink_to(elsewhere)
    before = content(elsewhere)
    with pytest.raises(CannotRemove):
        remove_data(removal(root, STORES["delta"]))
    assert content(elsewhere) == before


def test_a_data_root_that_is_itself_a_link_is_the_operators_choice(tmp_path: Path) -> None:
    disk, root = tmp_path / "disk", tmp_path / "root"
    disk.mkdir()
    root.symlink_to(disk)
    fill(root, GONE, "delta")
    remove_data(removal(root, STORES["delta"]))
    assert content(disk) == {}


@pytest.mark.parametrize("level", ["data", "refresh", "instance"])
def test_data_shared_with_a_living_instance_is_never_removed(tmp_path: Path, level: str) -> None:
    location = fill(tmp_path, GONE, "delta")
    shared = {
        "data": Path(location.data_uri),
        "refresh": Path(location.data_uri).parent,
        "instance": Path(location.data_uri).parents[1],
    }[level]
    link = tmp_path / TENANT / ALIVE / shared.relative_to(tmp_path / TENANT / GONE)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(shared)
    before = content(tmp_path)
    with pytest.raises(CannotRemove, match="may belong to other instances"):
        remove_data(removal(tmp_path, STORES["delta"]))
    assert content(tmp_path) == before
    link.unlink()
    remove_data(removal(tmp_path, STORES["delta"]))
    assert not (tmp_path / TENANT / GONE).exists()


def test_links_are_removed_without_their_targets(tmp_path: Path) -> None:
    root, precious = tmp_path / "root", tmp_path / "precious"
    location = fill(root, GONE, "delta")
    precious.mkdir()
    (precious / "thesis").write_text("x", encoding="utf-8")
    (Path(location.data_uri) / "part").symlink_to(precious)
    remove_data(removal(root, STORES["delta"]))
    assert not (root / TENANT / GONE).exists()
    assert content(precious) == {"thesis": b"x"}


def test_a_missing_data_root_does_not_count_as_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="does not exist"):
        remove_data(removal(tmp_path / "unmounted", STORES["delta"]))


def test_a_root_without_the_tenants_folder_is_another_root(tmp_path: Path) -> None:
    # The place of a disk that is not mounted.
    with pytest.raises(StoreUnavailable, match="has no folder acme"):
        remove_data(removal(tmp_path, STORES["delta"]))
    remove_data(removal(tmp_path, STORES["delta"], has_output=False))
    (tmp_path / TENANT).mkdir()
    remove_data(removal(tmp_path, STORES["delta"]))


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_folder_name_with_a_special_meaning_in_a_uri_removes_nothing_elsewhere(
    tmp_path: Path, scheme: str
) -> None:
    fill(tmp_path, ALIVE, "delta", tenant_id="other")
    kept = content(tmp_path)
    fill(tmp_path, GONE, "delta")
    (tmp_path / TENANT / GONE / f"%2E%2E%2F%2E%2E%2Fother%2F{ALIVE}%2Frefresh").mkdir()
    remove_data(removal(f"{scheme}{tmp_path}", STORES["delta"]))
    assert content(tmp_path) == kept
    assert not (tmp_path / TENANT / GONE).exists()


def test_a_link_to_itself_does_not_keep_data_of_other_instances(tmp_path: Path) -> None:
    fill(tmp_path, GONE, "delta")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "loop").symlink_to("loop")
    remove_data(removal(tmp_path, STORES["delta"]))
    assert not (tmp_path / TENANT / GONE).exists()


def test_a_link_of_another_tenant_keeps_the_data_and_is_not_named(tmp_path: Path) -> None:
    location = fill(tmp_path, GONE, "delta")
    link = tmp_path / "rival" / ALIVE / "refresh" / "data"
    link.parent.mkdir(parents=True)
    link.symlink_to(location.data_uri)
    with pytest.raises(CannotRemove, match="may belong to other instances") as refused:
        remove_data(removal(tmp_path, STORES["delta"]))
    assert "rival" not in str(refused.value)
    assert Path(location.data_uri).exists()


def test_only_tenants_folders_are_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, GONE, "delta")
    (tmp_path / "lost+found").mkdir()
    scan = os.scandir

    def refuse(folder: Any) -> Any:
        if isinstance(folder, Path) and folder.name == "lost+found":
            raise PermissionError(folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    remove_data(removal(tmp_path, STORES["delta"]))
    assert not (tmp_path / TENANT / GONE).exists()


@pytest.mark.parametrize("instance_id", ["", "..", "../other", ".", "*", GONE.upper() + "/x"])
def test_only_an_instances_own_folder_is_ever_meant(tmp_path: Path, instance_id: str) -> None:
    fill(tmp_path, ALIVE, "delta")
    before = content(tmp_path)
    with pytest.raises(CannotRemove):
        remove_data(removal(tmp_path, STORES["delta"], instance_id=instance_id))
    with pytest.raises(CannotRemove):
        remove_data(Removal(str(tmp_path), "..", GONE, (), has_output=False))
    assert content(tmp_path) == before
