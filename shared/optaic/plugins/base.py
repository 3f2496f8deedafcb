"""The abstract base classes that a definition version's `code_ref` names; they promise shapes and implement nothing."""

from __future__ import annotations

import datetime as dt
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from optaic.expression.signature import Parameter, Scope, Signature

if TYPE_CHECKING:
    import polars as pl

    from optaic.plugins.context import PipelineContext


class Pipeline(ABC):
    """Brings data in or derives it. A new object is made for each run, without arguments."""

    @abstractmethod
    def run(self, context: PipelineContext) -> pl.DataFrame:
        """The whole content of the new version: one row per key, by convention `date` (Date) and `entity` (String).

        In incremental mode `context.previous` holds the last version: extend it, where that is cheaper than
        starting afresh, and return the result of both.

        Raises:
            PluginError: with the type that the run shall show, for example NoDataInRange or InvalidConfig.
        """


@dataclass(frozen=True)
class StoredVersion:
    """What a store says about a version that it has just written."""

    uri: str
    physical_version: str
    digest: str  # SHA-256 of the content, hexadecimal; equal content, equal digest, on every machine
    row_count: int
    rows_inserted: int  # rows whose key the base version lacks
    rows_updated: int  # rows whose key the base version has with other values
    last_data_date: dt.date | None  # None when the table has no `date` column or no rows


class Store(ABC):
    """Keeps one dataset physically, with immutable versions. Made once per run from the store instance's config."""

    def __init__(self, config: Mapping[str, object] | None = None) -> None:
        self.config = dict(config or {})

    @abstractmethod
    def write(self, table: pl.DataFrame, base_version: str | None, uri: str) -> StoredVersion:
        """Make a version that holds exactly `table`.

        Args:
            table: the whole content.
            base_version: the physical version that the run was pinned to, None for a first one. Whatever else lies
                at `uri` is a leftover of a failed or fenced run: it must not show in the new version.
            uri: where the dataset lives; the same for all its versions.

        Raises:
            SchemaMismatch: the table cannot be kept.
            VersionNotFound: the base version is gone.
            WriteConflict: other writers kept winning.
        """

    @abstractmethod
    def read(self, uri: str, physical_version: str) -> pl.DataFrame:
        """The content of one version, in canonical order (sorted by key).

        Raises:
            VersionNotFound: there is no such version.
        """


class Accessor(ABC):
    """A reading pattern over a store. Made once per run from the accessor instance's config."""

    def __init__(self, config: Mapping[str, object] | None = None) -> None:
        self.config = dict(config or {})

    @abstractmethod
    def read(
        self,
        store: Store,
        uri: str,
        physical_version: str,
        *,
        columns: Sequence[str] | None = None,
        entities: Sequence[str] | None = None,
        start: dt.date | None = None,
        end: dt.date | None = None,
    ) -> pl.DataFrame:
        """Rows of one version; None selects everything, dates are inclusive.

        Raises:
            SchemaMismatch: a named column does not exist.
            VersionNotFound: there is no such version.
        """


class Operator(ABC):
    """An operator of the expression language.

    A time-series operator sees one entity's values in date order, a cross-sectional one the values of one date; the
    compiler sets that window. Absent values are null; a result that is not finite becomes null afterwards.
    """

    name: ClassVar[str]  # upper case
    scope: ClassVar[Scope]
    values: ClassVar[int] = 1  # how many sub-expressions come first
    parameters: ClassVar[tuple[Parameter, ...]] = ()  # numbers that follow them
    summary: ClassVar[str] = ""

    @classmethod
    def signature(cls) -> Signature:
        """What the parser needs to know."""
        return Signature(cls.name, cls.scope, cls.values, cls.parameters, cls.summary)

    @abstractmethod
    def compile(self, values: Sequence[pl.Expr], parameters: Sequence[float]) -> pl.Expr:
        """One polars expression of the length of its inputs (or a scalar), without `over`."""
