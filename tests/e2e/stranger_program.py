"""What another team would write, with nothing of ours but stubs that it generated from `protos/`.

Prints one JSON object. Run with the generated stubs as the only addition to the path.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import json_format, struct_pb2
from google.rpc import error_details_pb2, status_pb2

from optaic.definition.v1 import definition_service_pb2, definition_service_pb2_grpc
from optaic.instance.v1 import instance_pb2, instance_service_pb2, instance_service_pb2_grpc, spec_pb2
from optaic.lineage.v1 import lineage_service_pb2, lineage_service_pb2_grpc
from optaic.run.v1 import run_service_pb2, run_service_pb2_grpc
from optaic.status.v1 import status_service_pb2, status_service_pb2_grpc

METADATA = (("authorization", "Bearer development"),)
DEADLINE = 30


def service(name: str, stub: Callable[[grpc.Channel], Any]) -> Any:
    """Return the stub of one service at the address that the environment names."""
    return stub(grpc.insecure_channel(os.environ[f"OPTAIC_{name}_ADDRESS"]))


def main() -> None:
    definitions = service("INSTANCE", definition_service_pb2_grpc.DefinitionServiceStub)
    instances = service("INSTANCE", instance_service_pb2_grpc.InstanceServiceStub)
    runs = service("RUN", run_service_pb2_grpc.RunServiceStub)
    lineage = service("LINEAGE", lineage_service_pb2_grpc.LineageServiceStub)
    statuses = service("STATUS", status_service_pb2_grpc.StatusServiceStub)

    listed = definitions.ListDefinitions(
        definition_service_pb2.ListDefinitionsRequest(), metadata=METADATA, timeout=DEADLINE
    )
    project = instances.CreateProject(
        instance_service_pb2.CreateProjectRequest(project=instance_pb2.Project(name=sys.argv[1])),
        metadata=METADATA,
        timeout=DEADLINE,
    )
    config = struct_pb2.Struct()
    config.update({"symbols": ["AAPL", "MSFT"], "start": "2020-01-02", "end": "2020-12-31"})
    prices, call = instances.CreateInstance.with_call(
        instance_service_pb2.CreateInstanceRequest(
            instance=instance_pb2.Instance(
                project_id=project.project_id,
                name="prices",
                dataset=spec_pb2.DatasetSpec(
                    pipeline=spec_pb2.ComponentSpec(definition_name="sp500_prices", config=config)
                ),
            )
        ),
        metadata=METADATA,
        timeout=DEADLINE,
    )
    token = dict(call.trailing_metadata())["optaic-write-token"]
    reading = (*METADATA, ("optaic-read-tokens", token))
    before = statuses.GetInstanceStatus(
        status_service_pb2.GetInstanceStatusRequest(instance_id=prices.instance_id),
        metadata=reading,
        timeout=DEADLINE,
    )
    run = runs.SubmitRun(
        run_service_pb2.SubmitRunRequest(instance_id=prices.instance_id), metadata=METADATA, timeout=DEADLINE
    )
    *_, run = runs.WatchRun(
        run_service_pb2.WatchRunRequest(run_id=run.run_id), metadata=METADATA, timeout=DEADLINE
    )
    flow = {"instance_id": prices.instance_id, "flow_kind": "FLOW_KIND_REFRESH"}
    check = lineage.CheckUpstreamFreshness(
        json_format.ParseDict({"flow": flow}, lineage_service_pb2.CheckUpstreamFreshnessRequest()),
        metadata=METADATA,
        timeout=DEADLINE,
    )
    try:
        runs.GetRun(run_service_pb2.GetRunRequest(run_id="nonsense"), metadata=METADATA, timeout=DEADLINE)
    except grpc.RpcError as error:
        details = dict(error.trailing_metadata())["grpc-status-details-bin"]
        refusal = status_pb2.Status.FromString(details)
        bad = error_details_pb2.BadRequest()
        for detail in refusal.details:
            if detail.Is(bad.DESCRIPTOR):
                detail.Unpack(bad)
        refused = {"code": error.code().name, "field": bad.field_violations[0].field}
    print(
        json.dumps(
            {
                "stubs": definition_service_pb2.__file__,
                "definitions": sorted(definition.name for definition in listed.definitions),
                "before": before.status,
                "run": json_format.MessageToDict(run, preserving_proto_field_name=True),
                "all_ready": check.all_ready,
                "refused": refused,
            }
        )
    )


if __name__ == "__main__":
    main()
