"""The places of a flow's data and a run's outputs below the data root, and writing files there; reads no data."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from pyarrow import fs  # type: ignore[import-untyped] # it ships no type information

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


def instance_uri(data_root: str, tenant_id: str, instance_id: str) -> str:
    """Return the folder of everything that is an instance's."""
    return f"{data_root}/{instance_folder(tenant_id, instance_id)}"


def write_table(uri: str, table: pl.DataFrame) -> None:
    """Write one Parquet file; folders are made."""
    with _open(uri) as stream:
        table.write_parquet(stream)


def write_text(uri: str, text: str) -> None:
    """Write one UTF-8 file; folders are made."""
    with _open(uri) as stream:
        stream.write(text.encode("utf-8", errors="replace"))


def _open(uri: str) -> fs.NativeFile:
    filesystem, path = fs.FileSystem.from_uri(uri)
    filesystem.create_dir(path.rpartition("/")[0], recursive=True)
    return filesystem.open_output_stream(path)
