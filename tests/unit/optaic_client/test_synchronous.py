"""The synchronous client is the asynchronous one with plain methods, found through every source."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from optaic import Client, errors
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_pb2
from optaic.status.v1 import status_pb2, status_service_pb2
from support.fake_services import FakeServices

ID = str(uuid.UUID(int=1))


def test_the_ten_lines_of_the_readme(addressed: FakeServices) -> None:
    def watch(_: Any, __: grpc.ServicerContext) -> Iterator[run_pb2.Run]:
        yield run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_RUNNING)
        yield run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_COMPLETED)

    addressed.on("CreateProject", instance_pb2.Project(project_id="p"))
    addressed.on("CreateInstance", instance_pb2.Instance(instance_id=ID))
    addressed.on("SubmitRun", run_pb2.Run(run_id="r"))
    addressed.on("WatchRun", watch)
    addressed.on("GetInstanceStatus", status_pb2.InstanceStatus(instance_id=ID))
    with Client.connect() as client:
        project = client.projects.create("research")
        prices = client.instances.create(project=project.project_id, name="prices", dataset={"pipeline": {}})
        handle = client.runs.submit(prices)
        run = handle.wait()
        assert run.status == run_pb2.RUN_STATUS_COMPLETED
        assert handle.run_id == "r"
        assert handle.metrics == {}
        assert [each.status for each in handle.watch()] == [2, 3]
        assert client.status.get(prices).instance_id == ID


def test_a_watch_is_a_plain_iterator_that_may_be_left(addressed: FakeServices) -> None:
    def watch(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        revision = 0
        while context.is_active():
            revision += 1
            yield status_service_pb2.WatchInstanceStatusesResponse(revision=revision)

    addressed.on("WatchInstanceStatuses", watch)
    with Client.connect() as client:
        seen = []
        for change in client.status.watch():
            seen.append(change.revision)
            if len(seen) == 3:
                break
    assert seen == [1, 2, 3]


def test_the_synchronous_client_raises_optaic_errors(addressed: FakeServices) -> None:
    del addressed
    with Client.connect() as client, pytest.raises(errors.OptaicError):
        client.instances.get(ID)


def _write_state(folder: Path, address: str) -> None:
    folder.mkdir()
    endpoints = dict.fromkeys(("instance", "run", "lineage", "status"), address)
    (folder / "stack.json").write_text(json.dumps({"endpoints": endpoints}))


def test_a_stack_started_above_is_found(
    services: FakeServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.on("GetInstance", instance_pb2.Instance(name="x"))
    _write_state(tmp_path / ".state", services.address)
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    with Client.connect() as client:
        assert client.instances.get(ID).name == "x"


def test_a_named_state_folder_is_used(
    services: FakeServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.on("GetInstance", instance_pb2.Instance(name="x"))
    _write_state(tmp_path / "elsewhere", services.address)
    monkeypatch.setenv("OPTAIC_STATE", str(tmp_path / "elsewhere"))
    with Client.connect() as client:
        assert client.instances.get(ID).name == "x"


def test_arguments_come_before_everything(services: FakeServices, monkeypatch: pytest.MonkeyPatch) -> None:
    services.on("GetInstance", instance_pb2.Instance(name="x"))
    monkeypatch.setenv("OPTAIC_INSTANCE_ADDRESS", "127.0.0.1:1")
    with Client.connect(instance_address=services.address) as client:
        assert client.instances.get(ID).name == "x"


def test_the_error_without_an_address_names_the_remedy() -> None:
    with Client.connect() as client, pytest.raises(errors.UnavailableError, match="optaic dev up"):
        client.instances.get(ID)


def test_importing_the_package_loads_neither_grpc_nor_polars() -> None:
    program = "import sys, optaic; print({'grpc', 'polars', 'typer'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
