"""The abstract base classes that a definition version's `code_ref` names; they define interfaces and implement nothing."""

from __future__ import annotations

import datetime as dt
import pickle
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, final

from optaic.plugins.context import ChangedDates, DateRange, PipelineContext
from optaic.plugins.days import is_dated
from optaic.plugins.errors import CannotRemove, StoreRefused
from optaic.plugins.selection import between
from optaic.rules.columns import DATE, KEYS
from optaic.rules.kinds import TIMEZONE

if TYPE_CHECKING:
    import polars as pl


class Pipeline(ABC):
    """A pipeline that brings in or derives data. A new object is made for each run, without arguments."""

    # The properties of the configuration that decide which columns the table has and of which types; None: all may.
    # After a change of one of them, columns may be gone or of another type; otherwise such a refresh is refused.
    shaped_by: ClassVar[frozenset[str] | None] = None

    @abstractmethod
    def run(self, context: PipelineContext) -> pl.DataFrame | Part:
        """Return the whole content of the new version: one row per key, by convention `date` (Date) and `entity` (String).

        In incremental mode `context.previous` holds the last version: extend it, where that is cheaper than
        starting afresh, and return the result of both. With a `context.date_range` it holds nothing: return the rows
        of that range; the rest of the last version stays as it is, and rows outside are dropped.

        Where `context.changed` says in which dates the inputs have changed, a pipeline may return a Part: the rows from a date
        on, all others of `context.previous` being what it would compute again.

        Raises:
            PluginError: with the type that the run shall show, for example NoDataInRange or InvalidConfig.
        """

    def find_affected(self, context: PipelineContext, changed: ChangedDates) -> ChangedDates | str:
        """Return in which dates the content may differ after a change of the inputs in some dates, or why in any.

        Override it where the pipeline can say so. The worker asks after a run of a range of dates: if they lie in the range, the
        run counts as one without a range.
        """
        del context, changed
        return "the pipeline does not say which dates follow from a change of its inputs"

    def probe(self, context: PipelineContext) -> str:
        """Return a token of the source as it is now: another token means that the source has changed; empty: it cannot say.

        Override it where that costs much less than reading the source, for example the size and time of a file. The worker
        asks for it before each run, and between runs where the instance says how often. The context then has the
        configuration and the time zone, and nothing else. A token has 1,000 characters at most, and no secrets: it is shown.

        Raises:
            PluginError: the source cannot be asked.
        """
        del context
        return ""


@dataclass(frozen=True)
class Part:
    """The rows of a new version from a date on; those before are the ones of the last version."""

    table: pl.DataFrame
    start: dt.date


@dataclass(frozen=True)
class StoredVersion:
    """A version that a store has just written."""

    uri: str
    physical_version: str
    digest: str  # SHA-256 of the content, hexadecimal; equal content, equal digest, on every machine
    row_count: int
    rows_inserted: int  # rows whose key the base version lacks
    rows_updated: int  # rows whose key the base version has with other values
    last_data_date: dt.date | None  # None when the table has no `date` column or no rows
    keys: tuple[str, ...] = ()  # columns without nulls that identify a row; empty where the store knows none
    # What it kept otherwise than given: the run's metrics.
    notes: Mapping[str, str] = field(default_factory=dict)
    # The zone of each column that has one, where the store gives it back: days are read by it.
    zones: Mapping[str, str] = field(default_factory=dict)
    rows_deleted: int | None = (
        None  # rows of the base version whose key is gone; None: the worker counts them
    )
    # The first and the last day in which the content differs from the base version's, days of rows that are gone included.
    # None: it is not known, and every day may differ.
    changed: DateRange | None = None


class Store(ABC):
    """A store that keeps one dataset with immutable versions. Made once per run from the store instance's config.

    It gives back the instants that it was given, and the zone of each column: a day is one of a zone.
    """

    timezone: str = (
        TIMEZONE  # the dataset's zone, set by the caller: the zone of instants that were stored without one
    )

    def __init__(self, config: Mapping[str, object] | None = None) -> None:
        self.config = dict(config or {})

    def key_columns(self) -> tuple[str, ...]:
        """Return columns that identify a row; override it if `keys` of the config does not name them.

        The worker compares a refresh with the version before by them: how much would be deleted.
        """
        given = self.config.get("keys")
        return tuple(map(str, given)) if isinstance(given, list | tuple) and given else KEYS

    @abstractmethod
    def write(self, table: pl.DataFrame, base_version: str | None, uri: str) -> StoredVersion:
        """Make a version that holds exactly `table`.

        Args:
            table: the whole content.
            base_version: the physical version that the run was pinned to, None for a first one. Whatever else lies
                at `uri` is a leftover of a failed or fenced run: it must not show in the new version.
            uri: where the dataset lives; the same for all its versions.

        Raises:
            InvalidColumnName: a column has no name, or one that cannot be kept.
            OutOfRange: a value is too large or too small to be kept as it is.
            SchemaMismatch: the table cannot be kept.
            StoreRefused: the library under the store says so.
            StoreUnavailable: the place cannot be written.
            VersionNotFound: the base version is gone.
            WriteConflict: other writers kept winning.
        """

    def write_part(self, table: pl.DataFrame, start: dt.date, base_version: str, uri: str) -> StoredVersion:
        """Make a version that holds exactly `table`, as `write` does; override it if that is cheaper than writing everything.

        Args:
            table: the whole content; the rows before `start` are those of the base version, in its order.
            start: the first date that may differ.
            base_version: as of `write`.
            uri: as of `write`.
        """
        del start
        return self.write(table, base_version, uri)

    @abstractmethod
    def read(self, uri: str, physical_version: str) -> pl.DataFrame:
        """Return the content of one version, in canonical order (sorted by key).

        Raises:
            StoreRefused: the library under the store cannot read what is there.
            StoreUnavailable: the place cannot be read.
            VersionNotFound: there is no such version.
        """

    def read_from(self, uri: str, physical_version: str, start: dt.date) -> pl.DataFrame:
        """Return the rows of one version from a day on, as `read` does; override it if that is cheaper than reading all.

        Of a version whose `date` is no day, all rows are returned.
        """
        table = self.read(uri, physical_version)
        return between(table, start, None) if is_dated(table.schema.get(DATE)) else table

    def read_types(self, uri: str, physical_version: str) -> Mapping[str, pl.DataType]:
        """Return the columns of one version and their types; override it if a cheaper way than reading all exists.

        Raises:
            VersionNotFound: there is no such version.
        """
        return self.read(uri, physical_version).schema

    def remove(self, uri: str) -> None:
        """Remove every version that this store keeps at `uri`, and nothing else; override it.

        It is called when the dataset is gone and its grace is over, and again after a failure or a death: where nothing
        is left, it does nothing. What other datasets may share has to stay.

        Raises:
            CannotRemove: it is not known how; what is kept stays, and the removal says so.
            StoreUnavailable: the place cannot be reached.
        """
        raise CannotRemove(
            f"the store {type(self).__name__} cannot remove the data at {uri}; implement Store.remove"
        )


class ExternalStore(Store):
    """A store whose data another system writes: it reads in place, where `url` of its config says. `is_external` declares it.

    `read` gets as `physical_version` what the other system calls the version. It reads that version if it can, else what is there.
    """

    @final
    def write(self, table: pl.DataFrame, base_version: str | None, uri: str) -> StoredVersion:
        """Refuse: no run writes the data of another system."""
        del table, base_version
        raise StoreRefused(f"{uri} belongs to another system, so no run writes it; report its versions")

    @final
    def remove(self, uri: str) -> None:
        """Remove nothing: the data belongs to another system."""


class Accessor(ABC):
    """A reading pattern over a store. Made once per run from the accessor instance's config."""

    # Whether a row that it returns follows from the rows of the same date alone; then other dates stay when some change.
    is_rowwise: ClassVar[bool] = False
    # Set by the caller: what became known after this day is not to be read, where the data says when that was.
    known_until: dt.date | None = None

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
        """Return rows of one version; None selects everything, dates are inclusive.

        Raises:
            SchemaMismatch: a named column does not exist.
            VersionNotFound: there is no such version.
        """


class MLModule(ABC):
    """A model that learns a number from features. Made once per run from the model instance's config."""

    # What `prediction` is: of a regression the target, of a classification the probability of what `classify` finds.
    task: ClassVar[Literal["regression", "classification"]] = "regression"

    def __init__(self, config: Mapping[str, object] | None = None) -> None:
        self.config = dict(config or {})

    @abstractmethod
    def fit(self, features: pl.DataFrame, target: pl.Series) -> None:
        """Train the model.

        Args:
            features: a numeric column for each feature, in the order of the configuration; null where absent.
            target: as many values; rows where it is null teach nothing.

        Raises:
            InvalidConfig: a parameter has a value that the model cannot work with.
            NoDataInRange: too little is left to learn from.
            SchemaMismatch: the columns are not the configured features.
        """

    @abstractmethod
    def predict(self, features: pl.DataFrame) -> pl.DataFrame:
        """Return `prediction` and `confidence` (Float64) for each row of the features; null if the model cannot predict.

        Raises:
            NotFitted: it has not learnt yet.
            SchemaMismatch: the columns are not those it learnt from.
        """

    def classify(self, target: pl.Series) -> pl.Series:
        """Return which targets are of the class that a classification predicts; override it where that is not `> 0`."""
        return target > 0

    def save(self, path: Path) -> None:
        """Write what the model has learnt to a file; override it, with `load`, where pickle cannot write it."""
        with path.open("wb") as file:
            pickle.dump(vars(self), file, protocol=pickle.HIGHEST_PROTOCOL)

    def load(self, path: Path) -> None:
        """Read what `save` wrote, into a model that was made with the same config."""
        with path.open("rb") as file:
            vars(self).update(pickle.load(file))  # noqa: S301 - a run of the same instance wrote it

    def estimator(self) -> object | None:
        """Return the fitted estimator of scikit-learn that predicts from the features, for MLflow; None if there is none."""
        return None


@dataclass(frozen=True)
class Allocation:
    """The decision of an optimizer on one date."""

    weights: Mapping[str, float]  # by entity, in the order of names; an entity that is not named has none
    diagnostics: Mapping[
        str, float | str
    ]  # what the run shows; `solver_status` is the status that its result has


class Optimizer(ABC):
    """An optimizer that turns scores into weights. Made once per run from its instance's config and constraints."""

    def __init__(
        self,
        config: Mapping[str, object] | None = None,
        constraints: Mapping[str, object] | None = None,
    ) -> None:
        self.config = dict(config or {})
        self.constraints = dict(constraints or {})

    def sessions_needed(self) -> int | None:
        """Return how many past sessions of returns it reads; override it, and it gets no more than these. None: all.

        Raises:
            InvalidConfig: a parameter has a value that it cannot work with.
        """
        return None

    @abstractmethod
    def optimize(self, scores: Mapping[str, float], returns: pl.DataFrame) -> Allocation:
        """Return the weights of the entities that have a score.

        Args:
            scores: the combined signal on the date, by entity; higher is better.
            returns: `date` and a column of returns for each entity, up to and including the date; null before an entity
                has two closes.

        Raises:
            InvalidConfig: a parameter or constraint has a value that it cannot work with.
            NoDataInRange: there are no scores, or too few returns.
            NoSolution: no weights satisfy the constraints.
            SchemaMismatch: an entity has no returns.
        """
