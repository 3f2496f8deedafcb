"""The command line in this process, and the instance that its tests know."""

import uuid
from typing import Any

from typer.testing import CliRunner

from optaic.cli.app import app
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2

ID = str(uuid.UUID(int=1))
PRICES = instance_pb2.Instance(
    instance_id=ID,
    name="prices",
    kind=instance_pb2.INSTANCE_KIND_DATASET,
    state=instance_pb2.INSTANCE_STATE_ACTIVE,
    revision=3,
    flows=[
        instance_pb2.Flow(flow_kind=flow_pb2.FLOW_KIND_REFRESH, prefect_deployment_name="default.x.refresh")
    ],
)


def invoke(*arguments: str, status: int = 0) -> Any:
    """Run a command line."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == status, result.output
    return result
