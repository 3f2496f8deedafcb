"""The store and the pipeline `external`: one Parquet file that another system writes, read in place by the worker's policy."""

from __future__ import annotations

import polars as pl

from optaic.plugins import ExternalStore, InvalidConfig, Pipeline, PipelineContext, PluginError
from optaic.rules.sources import VERSION, find_version_problem
from worker.builtin.digest import sort_by
from worker.builtin.parameters import read_section, read_text
from worker.builtin.parquet_file import read_parquet
from worker.builtin.store_errors import typed
from worker.sources import access
from worker.sources.content import without_content
from worker.sources.reading import read_source


class ExternalFileStore(ExternalStore):
    """The rows of the Parquet file at `url`. `{version}` in it stands for what the other system calls the version.

    Without that the file is read as it is now, whatever version a run is pinned to.
    """

    @typed
    def read(self, uri: str, physical_version: str) -> pl.DataFrame:
        """Return the rows of the file, sorted by key.

        Raises:
            InvalidConfig: the URL or an option is malformed.
            SourceNotAllowed: the worker's policy does not allow the file, or a secret to be sent there.
            SourceNotFound: there is no such file.
            SourceUnavailable: it cannot be read.
            UnparsableData: it is no Parquet file.
        """
        del uri  # the configuration says it, with references to secrets
        configured = read_text(self.config, "url")
        if problem := find_version_problem(configured):
            raise InvalidConfig(f"url: {problem}")
        url = configured.replace(VERSION, physical_version)
        allowed = access.current()
        content = read_source(allowed, url, read_section(self.config, "storage_options"))
        with without_content(f"{url} is not a readable parquet file; check the file"):
            table = read_parquet(content, self.timezone, (), (), url, most=allowed.policy.max_bytes)
        return sort_by(table, [key for key in self.key_columns() if key in table.columns])


class ExternalPipeline(Pipeline):
    """The pipeline of a dataset that another system writes; no run calls it."""

    def run(self, context: PipelineContext) -> pl.DataFrame:
        """Refuse.

        Raises:
            PluginError: FlowExternal.
        """
        del context
        raise PluginError(
            "another system writes this data; report its versions with `optaic run report`",
            type="FlowExternal",
        )
