"""A tenant's data in a folder, and in an object store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from optaic import storage
from support.leftovers import TenantData, tenant_data
from support.object_store import ObjectStore, installed, needs_server


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[TenantData]:
    (tmp_path / "data" / "default").mkdir(parents=True)
    with tenant_data(str(tmp_path / "data"), tmp_path) as data:
        yield data


@pytest.fixture
def objects(object_store: ObjectStore, tmp_path: Path) -> Iterator[TenantData]:
    with installed(object_store.access()):
        storage.remove_below("s3://optaic/data/default")
        with tenant_data("s3://optaic/data", tmp_path) as data:
            yield data


@pytest.fixture(params=["folder", pytest.param("objects", marks=needs_server)])
def data(request: pytest.FixtureRequest) -> TenantData:
    made: TenantData = request.getfixturevalue(request.param)
    return made
