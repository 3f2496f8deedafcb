"""A thing that a run owes an outside system, and the interface of whoever delivers it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, Self

from optaic.rules.locations import instance_folder
from worker.written_files import FileGoneError, WrittenFile, list_files

_MOST_FILES = 1_000
_MOST_BYTES = 4 * 1024**3  # of all files together


class UnreachableError(Exception):
    """The system does not answer, or cannot take it yet; it is tried again."""


class RefusedError(Exception):
    """The system refuses this debt, but perhaps no other one; it is tried again."""


class GoneError(FileGoneError):
    """The system will never take it, because what it belongs to was deleted there; the message says so."""


@dataclass(frozen=True)
class Debt:
    """A debt of one run to one system. The run's id is the key by which a delivery that is repeated finds the first."""

    tenant_id: str
    instance_id: str
    run_id: str
    system: str  # as in `Run.telemetry_pending`
    fencing_token: str = field(repr=False)
    payload: Mapping[str, Any]  # as the system's deliverer understands it; JSON
    files: Mapping[
        str, str
    ]  # URIs of files and folders in the run's output folder, by the names that they get there

    def below(self, data_root: str) -> Self:
        """Return it with its files below a data root: the tenant's data may have been moved there since the run."""
        folder = f"/{instance_folder(self.tenant_id, self.instance_id)}/"

        def moved(uri: str) -> str:
            _, found, path = uri.partition(folder)
            return f"{data_root}{folder}{path}" if found else uri

        return replace(self, files={name: moved(uri) for name, uri in self.files.items()})

    def list_files(self) -> list[WrittenFile]:
        """Return the files, those below folders among them.

        Raises:
            GoneError: one is gone, or there are too many or too large ones.
            OSError: something cannot be listed.
        """
        try:
            found = list_files(self.files, _MOST_FILES)
        except FileGoneError as error:
            raise GoneError(str(error)) from error
        if len(found) > _MOST_FILES:
            raise GoneError(f"there are more than {_MOST_FILES} files; no more are delivered")
        if (size := sum(each.size for each in found)) > _MOST_BYTES:
            raise GoneError(f"the files have {size} bytes; at most {_MOST_BYTES} are delivered")
        return found

    def pack(self) -> bytes:
        """Serialize it as bytes."""
        return json.dumps(asdict(self), allow_nan=False).encode()

    @classmethod
    def unpack(cls, content: bytes) -> Self:
        """Parse what `pack` returned.

        Raises:
            ValueError: it is something else.
        """
        try:
            return cls(**json.loads(content))
        except TypeError as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True)
class Delivered:
    """The names that a system gives to what it was given; empty where it has no name for it."""

    mlflow_run_id: str = ""
    model_version: str = ""


class Deliverer(Protocol):
    """The way to one system. Every method may be repeated, and finds again what it has done before."""

    async def deliver(self, debt: Debt) -> Delivered:
        """Give the system all of it.

        Raises:
            UnreachableError: it is tried again later.
            GoneError: it is never tried again.
        """

    async def withdraw(self, debt: Debt) -> None:
        """Take back what the system was given of a run that did not complete; raises as `deliver`."""

    async def close(self) -> None:
        """Close the connections."""
