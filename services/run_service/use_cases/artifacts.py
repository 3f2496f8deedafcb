"""Sign URLs with which the files of runs are read; reads no file."""

from __future__ import annotations

from datetime import datetime, timedelta

from optaic import storage
from optaic.rules.locations import is_inside, outputs_folder
from optaic.run.v1 import run_pb2, run_service_pb2
from run_service.config import Settings
from run_service.domain.errors import artifact_not_found, artifact_not_signable, run_not_found
from run_service.store import runs as run_store
from run_service.store.records import Record
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.outputs import root_of
from servicekit import off_loop
from servicekit.artifact_urls import ArtifactUrls, SignedFile
from servicekit.context import RequestContext
from servicekit.times import set_time

_LIFETIME = timedelta(minutes=5)  # where the caller does not say


async def sign_artifact_url(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.SignArtifactUrlRequest
) -> run_service_pb2.SignArtifactUrlResponse:
    """Return a URL with which a file of a run can be read for some time.

    Raises:
        NotFoundError: RUN_NOT_FOUND, ARTIFACT_NOT_FOUND.
        FailedPreconditionError: ARTIFACT_NOT_SIGNABLE.
    """
    tenant_id = context.tenant_id
    async with deps.database.read(tenant_id) as connection:
        record = await run_store.get_run(connection, tenant_id, request.run_id)
    if record is None:
        raise run_not_found(request.run_id)
    artifact = _find(deps, tenant_id, record, request.name)
    lifetime = request.lifetime.ToTimedelta() if request.HasField("lifetime") else _LIFETIME
    response = run_service_pb2.SignArtifactUrlResponse(artifact=artifact)
    expires = deps.clock.now() + lifetime
    set_time(response.expire_time, expires)
    if not storage.is_remote(artifact.uri):
        response.url = _sign_at_gateway(deps.settings, artifact, expires)
        return response
    try:
        response.url = await off_loop.run(_sign, deps.settings, artifact.uri, lifetime)
    except OSError:  # whose text may name what only the operator should see
        why = "the storage of this installation makes none; ask its operator to check OPTAIC_S3_* of run-service"
        raise artifact_not_signable(artifact.name, why) from None
    return response


def _sign(settings: Settings, uri: str, lifetime: timedelta) -> str:
    return storage.sign(storage.Access(**settings.describe_access()), uri, lifetime)


def _sign_at_gateway(settings: Settings, artifact: run_pb2.Artifact, expires: datetime) -> str:
    file = SignedFile(
        artifact.name,
        artifact.uri,
        artifact.size_bytes,
        artifact.sha256,
        artifact.media_type,
        expires.timestamp(),
    )
    return ArtifactUrls(settings.artifact_url_key).sign(settings.gateway_url, file)


def _find(deps: Dependencies, tenant_id: str, record: Record, name: str) -> run_pb2.Artifact:
    """Return a file that the run itself has written, and that an object store or the gateway offers."""
    run = record.run
    artifact = next((each for each in run.artifact_manifest if each.name == name), None)
    folder = outputs_folder(tenant_id, run.instance_id, record.flow_kind, run.run_id)
    root = root_of(deps.settings.data_root, record)
    if artifact is None or not is_inside(artifact.uri, folder, root):
        raise artifact_not_found(run.run_id, name)
    if not storage.is_remote(artifact.uri):
        if root and deps.settings.gateway_url and deps.settings.artifact_url_key:
            return artifact
        raise artifact_not_signable(
            name,
            "it lies in a folder, which no server offers; read it with `run.artifact` where the folder is, or let the operator set "
            "OPTAIC_DATA_ROOT, OPTAIC_GATEWAY_URL and OPTAIC_ARTIFACT_URL_KEY of run-service",
        )
    if not root or not deps.settings.s3_access_key_id:
        raise artifact_not_signable(
            name,
            "run-service has no credential for S3; its operator sets OPTAIC_DATA_ROOT and OPTAIC_S3_ACCESS_KEY_ID for it",
        )
    return artifact
