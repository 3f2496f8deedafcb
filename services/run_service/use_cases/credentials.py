"""Give the executor of a started run a credential for its reports, and check it; docs/security.md has the rules."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import datetime

from run_service.domain.errors import fenced
from run_service.store.records import Record
from run_service.use_cases.dependencies import Dependencies
from servicekit.signing import ForgedError

_PURPOSE = "report of a run"


def hash_secret(start_secret: str) -> str:
    """Return what is stored of an executor's start secret, which is random and long."""
    return hashlib.sha256(start_secret.encode()).hexdigest()


def check_secret(record: Record, start_secret: str) -> None:
    """Refuse a repeated start by another executor than the one that holds the run.

    Raises:
        FailedPreconditionError: FENCED.
    """
    if not hmac.compare_digest(record.start_secret_hash, hash_secret(start_secret)):
        raise fenced(record.run.run_id)


def issue(deps: Dependencies, tenant_id: str, record: Record) -> str:
    """Return a credential for the reports of a run's present executor."""
    run = record.run
    return _seal(deps, tenant_id, run.run_id, [run.instance_id, record.flow_kind, run.orchestrator_run_id])


def renew(deps: Dependencies, tenant_id: str, run_id: str, credential: str) -> str:
    """Return a credential that is valid for longer, in place of a valid one."""
    _, *attempt = _open(deps, tenant_id, run_id, credential)
    return _seal(deps, tenant_id, run_id, attempt)


def is_valid(deps: Dependencies, tenant_id: str, run_id: str, credential: str) -> bool:
    """Return whether a credential was given for this run and has not expired."""
    try:
        expire_time, *_ = _open(deps, tenant_id, run_id, credential)
    except ForgedError:
        return False
    return deps.clock.now() < datetime.fromisoformat(expire_time)


def check(deps: Dependencies, tenant_id: str, record: Record, credential: str) -> None:
    """Refuse a report without a valid credential of the run's present executor.

    Raises:
        FailedPreconditionError: FENCED.
    """
    run = record.run
    if not is_valid(deps, tenant_id, run.run_id, credential):
        raise fenced(run.run_id)
    _, *attempt = _open(deps, tenant_id, run.run_id, credential)
    if attempt != [run.instance_id, record.flow_kind, run.orchestrator_run_id]:
        raise fenced(run.run_id)


def _seal(deps: Dependencies, tenant_id: str, run_id: str, attempt: list[str]) -> str:
    expire_time = deps.clock.now() + deps.settings.credential_lifetime
    payload = json.dumps([expire_time.isoformat(timespec="seconds"), *attempt])
    return deps.signer.seal(payload.encode(), _PURPOSE, tenant_id, run_id)


def _open(deps: Dependencies, tenant_id: str, run_id: str, credential: str) -> list[str]:
    parts: list[str] = json.loads(deps.signer.open(credential, _PURPOSE, tenant_id, run_id))
    return parts
