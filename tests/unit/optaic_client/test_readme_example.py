"""The README's example, executed as it stands: also by who runs it for the second time."""

import re
from pathlib import Path
from typing import Any

import grpc
import polars as pl
import pytest

from optaic.client.data import Data
from optaic.instance.v1 import instance_pb2, instance_service_pb2
from optaic.run.v1 import run_pb2
from optaic.status.v1 import status_pb2
from support.command_line import ID, PRICES
from support.fake_services import FakeServices, refuse

ROOT = Path(__file__).parents[3]
PROJECT = instance_pb2.Project(project_id=ID, name="research")


@pytest.fixture
def example(addressed: FakeServices, monkeypatch: pytest.MonkeyPatch) -> str:
    """The example, before services that remember names."""
    taken: set[str] = set()

    def create(answer: Any) -> Any:
        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            name = (request.instance if answer is PRICES else request.project).name
            if name in taken:
                refuse(context, grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN", f"there is a {name!r} already")
            taken.add(name)
            return answer

        return handle

    async def read(*_: Any, **__: Any) -> pl.DataFrame:
        return pl.DataFrame({"close": [1.0]})

    prices = instance_pb2.Instance()
    prices.CopyFrom(PRICES)
    prices.dataset.SetInParent()
    addressed.on("CreateProject", create(PROJECT))
    addressed.on("GetProject", PROJECT)
    addressed.on("CreateInstance", create(PRICES))
    addressed.on("ListInstances", instance_service_pb2.ListInstancesResponse(instances=[prices]))
    addressed.on("SubmitRun", run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_COMPLETED))
    addressed.on("GetInstanceStatus", status_pb2.InstanceStatus(instance_id=ID))
    monkeypatch.setattr(Data, "read", read)
    (found,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return str(found)


def test_the_example_may_be_run_twice(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        exec(compile(example, "README.md", "exec"), {})  # noqa: S102 - it is ours
    assert capsys.readouterr().out.count("COMPLETED") == 2
