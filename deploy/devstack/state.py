"""The state folder: what a stack remembers between two starts; it starts nothing itself."""

import fcntl
import json
import os
import secrets
from pathlib import Path
from typing import Any

from devstack.config import SERVICES

_FILE = "stack.json"
_SECRETS = (
    "postgres",
    "prefect",
    *(f"{service}_{role}" for service in SERVICES for role in ("owner", "app", "infra")),
    *(f"nats_{user}" for user in (*SERVICES, "subscriber")),
    "service_token",
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
    """The file's object; empty when there is none or when it is not readable as JSON."""
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

    def acquire(self) -> None:
        """Hold the folder until `release` or the end of this process; never inherited by children."""
        self.create()
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise StackInUseError(f"a stack is already running in {self.root}") from error
        self._lock = descriptor

    def release(self) -> None:
        """Let others have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def in_use(self) -> bool:
        """Whether some living supervisor holds the folder."""
        if not (self.root / "lock").exists():
            return False
        try:
            self.acquire()
        except StackInUseError:
            return True
        self.release()
        return False

    def load(self) -> dict[str, Any]:
        """What is remembered: `ports`, `secrets`, `endpoints`."""
        return read_json(self.root / _FILE)

    def save(self, **changes: Any) -> dict[str, Any]:
        """Remember more."""
        values = {**self.load(), **changes}
        write_private(self.root / _FILE, json.dumps(values, indent=2) + "\n")
        return values

    def secrets(self) -> dict[str, str]:
        """The stack's passwords, drawn once at its first start. URL-safe, so that they fit into any URL."""
        known: dict[str, str] = self.load().get("secrets", {})
        missing = [name for name in _SECRETS if name not in known]
        if missing:
            known = {**known, **{name: secrets.token_urlsafe(24) for name in missing}}
            self.save(secrets=known)
        return known
