"""The places of a flow's data and a run's outputs below the data root, and writing files there; reads no data."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from optaic import storage
from optaic.rules.locations import data_folder, instance_folder, outputs_folder


@dataclass(frozen=True)
class FlowLocation:
    """The places of one flow."""

    data_root: str
    tenant_id: str
    instance_id: str
    flow_kind: str  # lower case, without prefix

    @property
    def _flow(self) -> tuple[str, str, str]:
        return self.tenant_id, self.instance_id, self.flow_kind

    @property
    def data_uri(self) -> str:
        """Return the URI of the flow's dataset, which is the same for all its versions."""
        return f"{self.data_root}/{data_folder(*self._flow)}"

    def outputs_uri(self, run_id: str) -> str:
        """Return one run's own folder, with a slash at the end."""
        return f"{self.data_root}/{outputs_folder(*self._flow, run_id)}/"

    def write_output(self, run_id: str, name: str, text: str) -> str:
        """Write a text to a run's own folder and return its URI. User code may write there: no link of it is followed.

        Raises:
            OSError: it cannot be written.
        """
        uri, content = f"{self.outputs_uri(run_id)}{name}", text.encode("utf-8", errors="replace")
        if storage.is_remote(uri):
            storage.write(uri, content)
        else:
            root = Path(storage.local_place(self.data_root))
            _write_safely(root, Path(outputs_folder(*self._flow, run_id)), name, content)
        return uri


def instance_uri(data_root: str, tenant_id: str, instance_id: str) -> str:
    """Return the folder of everything that is an instance's."""
    return f"{data_root}/{instance_folder(tenant_id, instance_id)}"


def write_table(uri: str, table: pl.DataFrame) -> None:
    """Write one Parquet file; folders are made."""
    with storage.create_file(uri) as stream:
        table.write_parquet(stream)


def write_text(uri: str, text: str) -> None:
    """Write one text file; folders are made."""
    storage.write(uri, text.encode("utf-8", errors="replace"))


def copy_folder(source: Path, uri: str) -> None:
    """Copy the files below a folder of this machine to another one; folders are made."""
    for path in sorted(each for each in source.rglob("*") if each.is_file()):
        storage.write(f"{uri.rstrip('/')}/{path.relative_to(source).as_posix()}", path.read_bytes())


def _write_safely(root: Path, folder: Path, name: str, content: bytes) -> None:
    """Write a new file below a root, as its folder's owner; no link below the root is followed."""
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    root.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        here = os.open(root, os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, here)
        for place, part in enumerate(folder.parts):
            owner = os.fstat(here)
            is_new = False
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=here)
                is_new = True
            here = os.open(part, flags, dir_fd=here)
            stack.callback(os.close, here)
            if is_new and place and os.geteuid() == 0:  # what lies in a tenant's folder is the tenant's
                os.fchown(here, owner.st_uid, owner.st_gid)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=here)
        owner = os.fstat(here)
        file = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=here
        )
        with os.fdopen(file, "wb") as stream:
            stream.write(content)
            if os.geteuid() == 0:
                os.fchown(file, owner.st_uid, owner.st_gid)
