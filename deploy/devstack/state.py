"""The state folder of a stack, which keeps ports, secrets and addresses between two starts."""

import asyncio
import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from devstack import leftovers
from devstack.config import SERVICES

_FILE = "stack.json"
_INTERVENTIONS = "interventions.json"
_writing = threading.Lock()
_SUPERVISOR = "supervisor.json"
_LOCK_POLL_SECONDS = 0.05
_LOCK_SECONDS = 30.0
_SECRETS = (
    "postgres",
    "prefect",
    "mlflow",
    "prefect_login",
    "mlflow_login",
    *(f"{service}_{role}" for service in SERVICES for role in ("owner", "app", "infra")),
    *(f"nats_{user}" for user in (*SERVICES, "subscriber", "operator")),
    "service_token",
    "centrifugo_api",
    "centrifugo_token",
    "artifact_urls",
)


class StackInUseError(RuntimeError):
    """Another supervisor holds this state folder."""


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, readable by its owner only: it may hold credentials."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file; empty if there is no file or if it is not readable as JSON."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


class State:
    """One state folder: `stack.json` (ports, endpoints, credentials; mode 0600), `logs/`, and the servers' data."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.logs = root / "logs"
        self._lock: int | None = None

    def create(self) -> None:
        """Make the folder; its parents keep their modes."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(exist_ok=True)

    async def acquire(self) -> int:
        """Lock the folder until `release` or the end of this process; return the lock's descriptor.

        A supervisor that was killed leaves the lock to its guard until that has swept: then wait for it.
        """
        self.create()
        deadline = time.monotonic() + _LOCK_SECONDS
        while (descriptor := self._try_lock(fcntl.LOCK_EX)) is None:
            holder = self.supervisor()
            if holder is not None or time.monotonic() > deadline:
                pid = f" (pid {holder['pid']})" if holder else ""
                raise StackInUseError(
                    f"a stack is already running in {self.root}{pid}; stop it with `make down`"
                )
            await asyncio.sleep(_LOCK_POLL_SECONDS)
        self._lock = descriptor
        return descriptor

    def release(self) -> None:
        """Unlock the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def in_use(self) -> bool:
        """Return whether a supervisor or the guard of one holds the folder."""
        if not (self.root / "lock").exists():
            return False
        descriptor = self._try_lock(fcntl.LOCK_SH)
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    def _try_lock(self, kind: int) -> int | None:
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def supervisor(self) -> dict[str, Any] | None:
        """Return the last report of the supervisor of this folder, or None if no supervisor runs."""
        known = read_json(self.root / _SUPERVISOR)
        is_at_work = known and known["phase"] != "stopped"  # a program may outlive its stack
        start = leftovers.identify(known["pid"]) if is_at_work else None
        return known if start is not None and leftovers.is_same(start, known["start"]) else None

    def failure_of(self, pid: int | None) -> str:
        """Return why the supervisor `pid` (with None the last one) could not start its stack; empty if it could."""
        known = read_json(self.root / _SUPERVISOR)
        failed = known.get("phase") == "failed" and pid in {None, known["pid"]}
        return str(known["error"]) if failed else ""

    def announce(self, phase: str, **facts: Any) -> None:
        """Record the supervisor of this folder and its phase, for other processes."""
        pid = os.getpid()
        values = {"pid": pid, "start": leftovers.identify(pid), "phase": phase, **facts}
        write_private(self.root / _SUPERVISOR, json.dumps(values))

    def note_intervention(self, name: str, what: str) -> None:
        """Store the supervisor's last action on a program, and its reason."""
        with _writing:
            write_private(self.root / _INTERVENTIONS, json.dumps({**self.interventions(), name: what}))

    def interventions(self) -> dict[str, str]:
        """Return the last action on each program since this stack was started."""
        return {name: str(what) for name, what in read_json(self.root / _INTERVENTIONS).items()}

    def forget_interventions(self) -> None:
        """Remove the actions that the supervisor took for an earlier stack."""
        (self.root / _INTERVENTIONS).unlink(missing_ok=True)

    def load(self) -> dict[str, Any]:
        """Return the stored values: `ports`, `secrets`, `endpoints`."""
        return read_json(self.root / _FILE)

    def save(self, **changes: Any) -> dict[str, Any]:
        """Store further values."""
        values = {**self.load(), **changes}
        write_private(self.root / _FILE, json.dumps(values, indent=2) + "\n")
        return values

    def secrets(self) -> dict[str, str]:
        """Return the stack's passwords, which are drawn once at its first start and are URL-safe."""
        return self.draw_secrets(_SECRETS)

    def executor_tokens(self, tenants: Sequence[str]) -> dict[str, str]:
        """Return the token of each tenant's worker, drawn once."""
        names = {tenant: f"executor_{tenant}" for tenant in tenants}
        known = self.draw_secrets(names.values())
        return {tenant: known[name] for tenant, name in names.items()}

    def draw_secrets(self, names: Iterable[str]) -> dict[str, str]:
        """Return all passwords; those of these names that are new are drawn now, once."""
        known: dict[str, str] = self.load().get("secrets", {})
        missing = [name for name in names if name not in known]
        if missing:
            known = {**known, **{name: secrets.token_urlsafe(24) for name in missing}}
            self.save(secrets=known)
        return known
