"""The data that flows produced, as polars frames."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc
from google.protobuf import json_format

from optaic import errors
from optaic.client.connection import Connection
from optaic.client.instances import Instances
from optaic.client.lineage import Lineage
from optaic.client.references import FlowLike, flow_of
from optaic.client.runs import Runs
from optaic.client.selection import Date, Plugin, Selection, Stored
from optaic.client.tables import read_artifact, read_stored
from optaic.common.v1 import flow_pb2
from optaic.definition.v1 import definition_pb2, definition_service_pb2
from optaic.definition.v1.definition_service_pb2_grpc import DefinitionServiceStub
from optaic.instance.v1 import instance_pb2, spec_pb2
from optaic.rules.forms import is_id
from optaic.rules.kept_outputs import KEPT_BY, KEPT_FLOWS, READ_BY
from optaic.run.v1 import run_pb2

if TYPE_CHECKING:
    import polars as pl

_DATA = "data"  # what the table of a dataset or signal is called among the artifacts of its run
_FIRST = {flow_pb2.FLOW_KIND_BACKTEST: "equity_curve"}  # what is read where nobody says which


class Data:
    """Read what flows have produced."""

    def __init__(self, connection: Connection, instances: Instances, lineage: Lineage, runs: Runs) -> None:
        self._connection = connection
        self._instances = instances
        self._lineage = lineage
        self._runs = runs

    async def read(
        self,
        flow: FlowLike,
        version: int | str | None = None,
        *,
        output: str = "",
        columns: Sequence[str] | None = None,
        entities: Sequence[str] | None = None,
        start: Date | None = None,
        end: Date | None = None,
        flow_kind: str | int | None = None,
        project: str = "",
    ) -> pl.DataFrame:
        """Return a version of a flow's output as its dependants read it: through its store and its accessor.

        Args:
            flow: The flow, or an instance, its id or its name.
            version: A logical number, or a version id (a run's id); left out: the current one.
            output: Which table of several, for example `trades` of a backtest; left out: a dataset's or signal's data,
                an optimizer's decisions, an experiment's preview, a backtest's `equity_curve`.
            columns: Those that are wanted; `date` and `entity` always come along. Left out: all.
            entities: Those that are wanted; left out: all.
            start: The first day that is wanted, as date or text.
            end: The last day that is wanted.
            flow_kind: Which flow of the instance; left out: its own.
            project: Of the instance, where a name is given that several have.

        Raises:
            NotFoundError: VERSION_NOT_FOUND, there is no such version, or its data is gone; OUTPUT_NOT_FOUND.
            InvalidArgumentError: SCHEMA_MISMATCH, there is no such column.
            FailedPreconditionError: PLUGIN_NOT_INSTALLED, the code that reads it is not here.
            ArtifactCorruptError: A file is not the one that the run wrote.
            UnavailableError: STORE_UNAVAILABLE, the place where it is cannot be reached from here.
        """
        wanted = Selection.of(columns, entities, start, end)
        if isinstance(flow, str) and not is_id(flow):
            flow = await self._instances.get_by_name(flow, project=project)
        reference = await flow_of(self._connection, flow, flow_kind)
        found = await self._find(reference, version)
        instance = await self._instances.get(reference.instance_id, revision=found.instance_revision)
        dataset = _dataset_of(instance)
        find = self._connection.find_object_store
        if (
            dataset is not None
            and reference.flow_kind == flow_pb2.FLOW_KIND_REFRESH
            and output in {"", _DATA}
        ):
            stored = await self._describe(instance, dataset, found)
            return await read_stored(stored, wanted, find, self._connection.fetch_rows)
        if _kind_of(reference) in KEPT_FLOWS and output in {"", _DATA}:
            store, accessor = (Plugin(code_ref, {}, {}) for code_ref in (KEPT_BY, READ_BY))
            stored = Stored(
                instance.name, store, accessor, "", found.uri, found.physical_version, found.version_id
            )
            return await read_stored(stored, wanted, find, self._connection.fetch_rows)
        name = output or _FIRST.get(reference.flow_kind, "")
        run = await self._runs.get(found.version_id)
        artifacts = run.artifacts
        if name not in artifacts or name == _DATA:
            raise errors.NotFoundError(
                grpc.StatusCode.NOT_FOUND,
                "OUTPUT_NOT_FOUND",
                f"{instance.name} has no output {name!r} at this version; its outputs are {', '.join(sorted(artifacts)) or 'none'}",
            )
        fetch = self._connection.fetch_artifact
        return await read_artifact(f"{instance.name}, {name}", run, name, wanted, find, fetch)

    async def _find(self, flow: flow_pb2.FlowRef, version: int | str | None) -> flow_pb2.VersionRef:
        """Return a version with the id of its run and the revision at which it is read."""
        if isinstance(version, str):
            run = await self._runs.get(version)
            if (run.instance_id, run.flow_kind) == (flow.instance_id, flow.flow_kind) and _has_output(run):
                return _version_of(run)
            raise _no_version(flow, f"version {version}; use the id of one of its completed runs")
        current = (await self._lineage.state(flow)).current_version
        if not current.version:
            raise _no_version(flow, "output yet; run it first")
        if version in {None, current.version}:
            return current
        if version is not None and 0 < version < current.version:
            runs = await self._runs.list(
                flow.instance_id, flow_kind=flow.flow_kind, statuses=[run_pb2.RUN_STATUS_COMPLETED]
            )
            numbered = _number(runs)
            if version in numbered:
                return numbered[version]
        raise _no_version(flow, f"version {version}; its newest is {current.version}")

    async def _describe(
        self, instance: instance_pb2.Instance, dataset: spec_pb2.DatasetSpec, found: flow_pb2.VersionRef
    ) -> Stored:
        store, accessor = await asyncio.gather(
            *(self._describe_plugin(component) for component in (dataset.store, dataset.accessor))
        )
        return Stored(
            instance.name,
            store,
            accessor,
            dataset.timezone,
            found.uri,
            found.physical_version,
            found.version_id,
        )

    async def _describe_plugin(self, component: spec_pb2.ComponentSpec) -> Plugin:
        request = definition_service_pb2.GetDefinitionVersionRequest(
            definition_version_id=component.definition_version_id
        )
        version: definition_pb2.DefinitionVersion = await self._connection.call(
            "instance", DefinitionServiceStub, "GetDefinitionVersion", request, keeps_tokens=False
        )
        return Plugin(
            version.code_ref,
            json_format.MessageToDict(component.config),
            json_format.MessageToDict(version.parameters_schema),
        )


def _dataset_of(instance: instance_pb2.Instance) -> spec_pb2.DatasetSpec | None:
    match instance.WhichOneof("spec"):
        case "dataset":
            return instance.dataset
        case "signal":
            return instance.signal.dataset
    return None


def _has_output(run: run_pb2.Run) -> bool:
    return run.status == run_pb2.RUN_STATUS_COMPLETED and bool(run.output_version.physical_version)


def _version_of(run: run_pb2.Run) -> flow_pb2.VersionRef:
    version = flow_pb2.VersionRef()
    version.CopyFrom(run.output_version)
    version.version_id, version.instance_revision = run.run_id, run.instance_revision
    return version


def _number(runs: Sequence[run_pb2.Run]) -> dict[int, flow_pb2.VersionRef]:
    """Return the versions by number; a run with unchanged output made no new version.

    How the one before is read was not always recorded: then its successor says so.
    """
    versions: dict[int, flow_pb2.VersionRef] = {}
    last = flow_pb2.VersionRef()
    for run in sorted(runs, key=lambda each: each.run_number):
        output = run.output_version
        before = last.readers_hash or output.base_readers_hash
        is_read_alike = not output.readers_hash or before in {"", output.readers_hash}
        # The first digest after that of an earlier release is compared as that release gave it.
        is_same = output.digest != "" and last.digest in {
            output.digest,
            output.former_digest or output.digest,
        }
        if not versions or not is_same or not is_read_alike:
            versions[len(versions) + 1] = _version_of(run)
        last = output
    return versions


def _kind_of(flow: flow_pb2.FlowRef) -> str:
    return flow_pb2.FlowKind.Name(flow.flow_kind).removeprefix("FLOW_KIND_").lower()


def _no_version(flow: flow_pb2.FlowRef, wanted: str) -> errors.NotFoundError:
    kind = _kind_of(flow)
    return errors.NotFoundError(
        grpc.StatusCode.NOT_FOUND,
        "VERSION_NOT_FOUND",
        f"the flow {kind} of instance {flow.instance_id} has no {wanted}",
    )
