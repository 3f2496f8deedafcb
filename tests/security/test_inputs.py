"""A worker reads the data of its tenant's flows only, even if a run's record names another place."""

from __future__ import annotations

import pytest

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.plugins import PluginError
from optaic.run.v1 import run_pb2
from worker.input_places import check_places

REFRESH = flow_pb2.FLOW_KIND_REFRESH
OWN, OTHER = "01900000-0000-7000-8000-000000000001", "01900000-0000-7000-8000-000000000002"
PLACES = [
    f"file:///data/rival/{OWN}/refresh/data",
    f"file:///data/acme/{OTHER}/refresh/data",
    f"file:///data/acme/{OWN}/refresh/data/../../../../rival/{OTHER}/refresh/data",
    f"file:///data/acme/{OWN}/backtest/data",
    f"simplecache::file:///data/acme/{OWN}/refresh/data",
    "/etc/passwd",
]


def _run(uri: str, *, is_base: bool) -> run_pb2.Run:
    run = run_pb2.Run(instance_id=OWN, flow_kind=REFRESH)
    if is_base:
        run.base_version.uri = uri
    else:
        run.input_versions.add(instance_id=OWN, flow_kind=REFRESH, instance_name="prices", uri=uri)
    return run


@pytest.mark.parametrize("uri", PLACES)
@pytest.mark.parametrize("is_base", [True, False])
def test_data_elsewhere_is_not_read(uri: str, *, is_base: bool) -> None:
    with pytest.raises(PluginError) as caught:
        check_places("acme", _run(uri, is_base=is_base), [])
    assert caught.value.type == "InputMisplaced"


@pytest.mark.parametrize("root", ["file:///data", "s3://bucket/a", "/data"])
@pytest.mark.parametrize("is_base", [True, False])
def test_data_of_the_flow_is_read_from_any_root(root: str, *, is_base: bool) -> None:
    check_places("acme", _run(f"{root}/acme/{OWN}/refresh/data", is_base=is_base), [])
    check_places("acme", _run("", is_base=is_base), [])


def _external(url: str) -> instance_pb2.Instance:
    instance = instance_pb2.Instance(instance_id=OWN)
    instance.flows.add(flow_kind=REFRESH, is_external=True)
    instance.dataset.store.config.update({"url": url})
    return instance


@pytest.mark.parametrize(
    "uri", [*PLACES, f"file:///data/acme/{OWN}/refresh/data", "file:///exports/prices.parquet/../x"]
)
def test_data_of_another_system_is_read_only_where_its_store_says(uri: str) -> None:
    run = _run(uri, is_base=False)
    check_places("acme", run, [_external(uri)])
    with pytest.raises(PluginError) as caught:
        check_places("acme", run, [_external("file:///exports/prices.parquet")])
    assert caught.value.type == "InputMisplaced"


@pytest.mark.parametrize("flow_kind", [flow_pb2.FLOW_KIND_MONITORING, flow_pb2.FLOW_KIND_PREVIEW])
def test_only_the_flow_that_is_external_has_its_data_elsewhere(
    flow_kind: flow_pb2.FlowKind.ValueType,
) -> None:
    run = _run("file:///exports/prices.parquet", is_base=False)
    run.input_versions[0].flow_kind = flow_kind
    with pytest.raises(PluginError, match="outside of its flow's folder"):
        check_places("acme", run, [_external("file:///exports/prices.parquet")])
