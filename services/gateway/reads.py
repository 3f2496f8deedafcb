"""Serve rows of the tables that runs have written: whoever may read the run may read them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway import errors
from gateway.artifacts import find_artifact, find_data
from gateway.caller import Callers, caller_of
from gateway.config import Settings
from gateway.downloads import Downloads
from gateway.places import Places, Room
from gateway.questions import Questions, ServiceRefusedError
from gateway.read_parameters import JSON, Parameters, media_type_of, read_parameters
from gateway.reading import read_table
from gateway.request import Request
from gateway.response import Response
from optaic import storage
from optaic.common.v1.flow_pb2 import FlowKind
from optaic.definition.v1 import definition_pb2, definition_service_pb2
from optaic.instance.v1 import instance_pb2, instance_service_pb2, spec_pb2
from optaic.rules.kept_outputs import KEPT_BY, KEPT_FLOWS
from optaic.run.v1 import run_pb2
from servicekit.enums import enum_word

_ID = "([0-9a-f-]{36})"
_DATA = re.compile(rf"/data/{_ID}(/statistics)?")
_ARTIFACT = re.compile(rf"/runs/{_ID}/artifacts/((.{{1,1024}})/(rows|statistics))", re.DOTALL)
_GET_INSTANCE = "/optaic.instance.v1.InstanceService/GetInstance"
_GET_DEFINITION_VERSION = "/optaic.definition.v1.DefinitionService/GetDefinitionVersion"
_STORES = {
    "worker.builtin.delta_store:DeltaStore": "delta",
    "worker.builtin.parquet_store:ParquetStore": "parquet",
}
MOST_PAGE_BYTES = 8 * 1024 * 1024
_PAGE_SHARE, _STATISTICS_SHARE = 0.25, 0.6  # of the time of a read, for the scan
_MOST_SCANNED_ROWS = 50_000_000  # by statistics


@dataclass(frozen=True)
class _Source:
    """The place of a table, and how it is kept there."""

    root: str
    uri: str
    store: str  # delta, parquet, or file
    version: str = ""
    timezone: str = ""
    size: int = 0


class Reads:
    """The rows of tables, at `/data/<run>` and `/runs/<run>/artifacts/<name>/rows`, and their statistics.

    This process asks whether the caller may read and where the table lies; the table itself is opened in another one.
    """

    def __init__(
        self, settings: Settings, questions: Questions, downloads: Downloads, callers: Callers
    ) -> None:
        self._settings = settings
        self._roots = settings.data_roots()
        self._questions = questions
        self._downloads = downloads
        self._callers = callers
        self._places = Places("reads", Room(settings.maximum_reads, settings.caller_reads))

    @staticmethod
    def is_at(path: str) -> bool:
        """Return whether a path names rows of a table, or their statistics."""
        return _DATA.fullmatch(path) is not None or _ARTIFACT.fullmatch(path) is not None

    async def serve(self, request: Request, response: Response) -> None:
        """Answer a GET or a HEAD.

        Raises:
            InvalidArgumentError: INVALID_ARGUMENT, INVALID_PAGE_TOKEN, NOT_ACCEPTABLE, SCHEMA_MISMATCH.
            NotFoundError: VERSION_NOT_FOUND, ARTIFACT_NOT_FOUND.
            FailedPreconditionError: NO_DATA_ROOT, DATA_ROOT_NOT_SERVED, STORE_NOT_READ_HERE, NOT_A_TABLE, READ_TOO_LARGE, ROW_TOO_LARGE.
            ResourceExhaustedError: TOO_MANY_READS.
            UnavailableError: DATA_NOT_READABLE.
            InternalError: ARTIFACT_CORRUPT.
            DeadlineExceededError: READ_TIMEOUT.
        """
        if not self._roots:
            raise errors.no_data_root()
        data, artifact = _DATA.fullmatch(request.path), _ARTIFACT.fullmatch(request.path)
        try:
            if data is not None:
                run = await self._questions.get_run(request, data[1])
                source = await self._find_data(request, run)
                is_statistics = data[2] is not None
            else:
                assert artifact is not None
                run = await self._questions.get_run(request, artifact[1])
                if find_artifact(run, artifact[2]):  # a file whose own name ends so
                    await self._downloads.serve(request, response)
                    return
                source = _find_file(run, artifact[3])
                is_statistics = artifact[4] == "statistics"
        except ServiceRefusedError as refused:
            await response.refuse(refused.error, domain=refused.domain)
            return
        if source.root not in self._roots:
            raise errors.data_root_not_served(request.path.rpartition("/")[2])
        # Only now: there are few places, and whoever may not read the run takes none.
        caller = caller_of(request.authorization, request.address)
        with self._places.take(self._callers.place_of(caller)):
            await self._answer(source, request, response, is_statistics=is_statistics)

    async def _find_data(self, request: Request, run: run_pb2.Run) -> _Source:
        """Return the place of the table that a run has written."""
        version = run.output_version.physical_version
        if run.status != run_pb2.RUN_STATUS_COMPLETED or not version:
            raise errors.no_version(run.run_id)
        timezone, code_ref = "", KEPT_BY
        kind = enum_word(FlowKind, run.flow_kind)
        if kind not in KEPT_FLOWS:
            timezone, code_ref = await self._describe(request, run)
        store = _STORES.get(code_ref)
        if store is None:
            raise errors.store_not_read_here()
        found = find_data(run)
        if found is None:
            raise errors.no_version(run.run_id)
        return _Source(found[1], found[0], store, version, timezone)

    async def _describe(self, request: Request, run: run_pb2.Run) -> tuple[str, str]:
        """Return the time zone of a run's dataset, and the code that keeps it."""
        wanted = instance_service_pb2.GetInstanceRequest(
            instance_id=run.instance_id, revision=run.instance_revision
        )
        instance = await self._questions.ask(
            request, "instance", _GET_INSTANCE, wanted, instance_pb2.Instance
        )
        dataset = _dataset_of(instance)
        if dataset is None:
            raise errors.no_version(run.run_id)
        version = await self._questions.ask(
            request,
            "instance",
            _GET_DEFINITION_VERSION,
            definition_service_pb2.GetDefinitionVersionRequest(
                definition_version_id=dataset.store.definition_version_id
            ),
            definition_pb2.DefinitionVersion,
        )
        return dataset.timezone, version.code_ref

    async def _answer(
        self, source: _Source, request: Request, response: Response, *, is_statistics: bool
    ) -> None:
        parameters = read_parameters(request.path, request.query, is_statistics=is_statistics)
        media_type = JSON if is_statistics else media_type_of(request.headers.get("accept", ""))
        job = self._describe_job(source, parameters, media_type, is_statistics=is_statistics)
        answer = await read_table(job, self._settings.read_seconds, MOST_PAGE_BYTES)
        body, headers = (
            (answer.content, {})
            if is_statistics
            else _page(answer.header, answer.content, parameters, media_type)
        )
        await response.answer(200, body, media_type, headers, has_body=request.method == "GET")

    def _describe_job(
        self, source: _Source, parameters: Parameters, media_type: str, *, is_statistics: bool
    ) -> Mapping[str, Any]:
        seconds = self._settings.read_seconds
        access = storage.installed()
        return {
            **dataclasses.asdict(source),
            **parameters.describe(),
            "media_type": media_type,
            "is_statistics": is_statistics,
            "most_bytes": MOST_PAGE_BYTES,
            "most_rows": _MOST_SCANNED_ROWS,
            "memory_bytes": self._settings.read_memory_bytes,
            "seconds": seconds,
            "scan_seconds": seconds * (_STATISTICS_SHARE if is_statistics else _PAGE_SHARE),
            "access": dataclasses.asdict(access) if access and storage.is_remote(source.uri) else None,
        }


def _page(
    header: Mapping[str, Any], content: bytes, parameters: Parameters, media_type: str
) -> tuple[bytes, dict[str, str]]:
    """Return the body of a page, and the headers that say what its format has no place for."""
    token, total = parameters.token(header["following"]), header["total"]
    headers = {"optaic-next-page-token": token} if token else {}
    if total is not None:
        headers["optaic-total-rows"] = str(total)
    if media_type != JSON:
        return content, {**headers, "content-disposition": "attachment"}
    known = {} if total is None else {"totalRows": total}
    around = json.dumps({"columns": header["columns"], "nextPageToken": token, **known}, ensure_ascii=False)
    return around.removesuffix("}").encode("utf-8", "replace") + b', "rows": ' + content + b"}", headers


def _find_file(run: run_pb2.Run, name: str) -> _Source:
    found = find_artifact(run, name)
    if found is None:
        raise errors.artifact_not_found(run.run_id, name)
    return _Source(found[1], found[0].uri, "file", size=found[0].size_bytes)


def _dataset_of(instance: instance_pb2.Instance) -> spec_pb2.DatasetSpec | None:
    match instance.WhichOneof("spec"):
        case "dataset":
            return instance.dataset
        case "signal":
            return instance.signal.dataset
    return None
