"""The data that flows produced, as polars frames. Generated from optaic.client.data by `make client`; do not edit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optaic.client import data as asynchronous
from optaic.client.references import FlowLike
from optaic.client.selection import Date
from optaic.client.synchronous.loop import Plain

if TYPE_CHECKING:
    import polars as pl


class Data(Plain[asynchronous.Data]):
    """Read what flows have produced."""

    def read(
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
        return self._loop.run(
            self._target.read(
                flow,
                version,
                output=output,
                columns=columns,
                entities=entities,
                start=start,
                end=end,
                flow_kind=flow_kind,
                project=project,
            )
        )
