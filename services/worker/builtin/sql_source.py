"""The pipeline `sql`: a table or query of any database that SQLAlchemy speaks to; it changes nothing there."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import polars as pl
import sqlalchemy as sa
from sqlalchemy import exc

from optaic.plugins import (
    InvalidConfig,
    InvalidQuery,
    Pipeline,
    PipelineContext,
    SchemaMismatch,
    SourceUnavailable,
)
from optaic.plugins.secrets import has_placeholder
from optaic.rules.columns import KEYS
from redaction import PREFIX
from worker.builtin.parameters import Config, read_names, read_text
from worker.builtin.sql_rows import Fetched, Mixture, make_table
from worker.builtin.sql_text import trim
from worker.builtin.tidy import ISO, check_columns, choose, cut, read_date_columns, read_mapping, tidy
from worker.builtin.typed.casting import find_lost_digits
from worker.builtin.typed.holding import align
from worker.builtin.typed.refusals import shorten
from worker.builtin.zones import to_zones, zones_of
from worker.sources import access, databases
from worker.sources.access import BoundSecrets
from worker.sources.content import too_large, without_content
from worker.sources.driver_errors import describe_query_error

_T = TypeVar("_T")
_BATCH = 10_000  # rows
_LONGEST_TOKEN = 1_000  # characters
_SIZE = 8  # bytes of a value that is neither text nor bytes
_PASSWORDS = ("password", "passwd", "pwd")
# Formats whose texts and numbers grow with the date: the larger unit first, each of a fixed width.
_SORTED = re.compile(r"[^%]*(%F|%Y[^%]*%m[^%]*%d)[^%]*(%H[^%]*(%M[^%]*(%S[^%]*)?)?|%T[^%]*)?")


class SqlPipeline(Pipeline):
    """A pipeline of the rows of `table` or `query`; with a `cursor`, an incremental refresh reads only newer rows."""

    shaped_by = frozenset({"table", "query", "columns", "dates", "date_format"})

    def run(self, context: PipelineContext) -> pl.DataFrame:
        """Read one row for each row of the source; incrementally, merge them by `keys` into the base version.

        Raises:
            InvalidConfig: a parameter is malformed, the database's driver is not installed, or the cursor holds
                dates as texts or numbers that do not sort as dates do.
            SourceNotAllowed: the worker's policy does not allow the database, or a secret to be sent there.
            InvalidQuery: there is no such table or column, or the query is none.
            SourceUnavailable: the database does not answer.
            SchemaMismatch: a column is missing, or its type changed so that old and new rows do not go together.
            UnparsableData: a date is none.
            NoDataInRange: there is no row.
        """
        config = context.config
        mapping, dates = read_mapping(config), read_date_columns(config)
        cursor = str(config.get("cursor") or "")
        kept = _name_of_cursor(cursor, mapping, dates)
        formats = {name: _read_format(config, name) for name in dates}
        date_format = formats.get(kept, ISO)
        bounds = context.date_range
        # A range of dates is read as a whole: the cursor tells nothing of what changed or went within it.
        is_whole = bool(bounds.start or bounds.end) or self._starts_afresh(context)
        base = context.previous if cursor and not is_whole else None
        if base is not None and kept not in base.columns:
            base = None  # made by another query: start afresh
        last = None if base is None else base[kept].max()
        source = read_text(config, "table") if config.get("table") else "the query"
        context.progress(0.1, f"reading {source}" + ("" if last is None else f" from {kept} {last!s} on"))
        fetched = _fetch(config, cursor, last, date_format if kept in dates else "", source)
        table = fetched.table
        if cursor:
            check_columns([cursor], table.columns, source)
            if kept in dates and _is_written(table[cursor]) and not _SORTED.fullmatch(date_format):
                text = f"{cursor!r} contains dates in the format {date_format}, and such texts do not sort in the order of the dates"
                raise InvalidConfig(f"cursor: {text}; use a column whose values grow, or set no cursor")
        # A database gives instants in the zone of its session, which says nothing of them.
        table = choose(to_zones(table, {}, context.timezone), mapping, source)
        _report_names(fetched, mapping, context)
        mixtures = {name: fetched.mixtures.get(mapping.get(name, name)) for name in table.columns}
        found = {name: mixture for name, mixture in mixtures.items() if mixture and name not in dates}
        table = tidy(self._type(table, found, context, dates, source), dates, formats, source)
        context.progress(0.8, f"{table.height} rows read")
        context.report("rows_fetched", table.height)
        if base is not None:
            keys = list(read_names(config, "keys") or KEYS)
            merged = _merge(base, table, keys, source)
            context.report("deletions", _describe_unseen(base.filter(pl.col(kept) == last), table, keys))
            table = merged
        return cut(table, bounds, source)

    def probe(self, context: PipelineContext) -> str:
        """Return the largest value of the cursor; without a cursor it cannot say whether the source has changed. Raises as `run`."""
        config = context.config
        cursor = str(config.get("cursor") or "")
        if not cursor:
            return ""
        source = read_text(config, "table") if config.get("table") else "the query"

        def largest(connection: sa.Connection, most: int) -> object:
            del most
            column: sa.ColumnClause[Any] = sa.column(cursor)
            rows = _select(config, connection.dialect.name, cursor).subquery("rows")
            return connection.scalar(sa.select(sa.func.max(column)).select_from(rows))

        found = _ask(config, source, largest)
        return "" if found is None else f"{cursor} {found}"[:_LONGEST_TOKEN]

    def _starts_afresh(self, context: PipelineContext) -> bool:
        """Return whether the last version cannot be continued; never here, because a changed source needs mode FULL."""
        del context
        return False

    def _type(
        self,
        table: pl.DataFrame,
        mixtures: Mapping[str, Mixture],
        context: PipelineContext,
        dates: Sequence[str],
        source: str,
    ) -> pl.DataFrame:
        """Return the table with the types of its columns, and what there is to say of them; here those that the source gives."""
        del dates, source
        altered = {
            name: f"{mixture.altered} became another number"
            for name, mixture in mixtures.items()
            if mixture.altered
        }
        altered |= find_lost_digits(table)
        report_types(table, mixtures, context)
        if altered:
            context.report("altered_by_numbers", shorten(altered))
        return table


def _report_names(fetched: Fetched, mapping: Mapping[str, str], context: PipelineContext) -> None:
    """Report the columns whose names were changed although the configuration does not rename them."""
    said = {name: why for name, why in fetched.renamed.items() if not mapping}
    if said:
        context.report("columns_named", shorten(said))


def report_types(table: pl.DataFrame, mixtures: Mapping[str, Mixture], context: PipelineContext) -> None:
    """Report the columns that became texts because their values had several types."""
    said = {
        name: f"{mixture.said}; all values are texts now"
        for name, mixture in mixtures.items()
        if table.schema[name] == pl.String()
    }
    if said:
        context.report("kept_as_text", shorten(said))


def _read_format(config: Config, name: str) -> str:
    """Return how a column's dates are written."""
    given = config.get("date_format")
    return str((given.get(name) if isinstance(given, Mapping) else given) or "") or ISO


def _describe_unseen(again: pl.DataFrame, table: pl.DataFrame, keys: Sequence[str]) -> str:
    """Describe which deletions were not seen. Rows of the last cursor, `again`, are read again; other rows are not."""
    present = table.select(pl.col(name).cast(again.schema[name], strict=False) for name in keys)
    gone = again.join(present, on=list(keys), how="anti").height
    found = (
        f"{gone} rows up to the last cursor no longer exist at the source, and are kept; other deletions are "
        if gone
        else ""
    )
    return f"{found}not detected: a refresh with a cursor reads only newer rows; mode FULL deletes the rows that no longer exist"


def _name_of_cursor(cursor: str, mapping: Mapping[str, str], dates: Sequence[str]) -> str:
    """Return the name that the cursor has in the result, where the next refresh looks for it."""
    if not cursor or not mapping:
        return cursor
    names = [name for name, source in mapping.items() if source == cursor]
    if not names:
        raise InvalidConfig(
            f"columns: must keep the cursor column {cursor!r}; the next refresh continues from it"
        )
    return next((name for name in names if name not in dates), names[0])


def _is_written(dates: pl.Series) -> bool:
    """Return whether a column contains texts or numbers instead of dates."""
    return dates.dtype == pl.String or dates.dtype.is_integer()


def _select(config: Config, dialect: str, *columns: str) -> sa.Select[Any]:
    """Return columns of the source; all if none is named."""
    if config.get("table"):
        schema, _, name = read_text(config, "table").rpartition(".")
        rows: sa.FromClause = sa.table(name, schema=schema or None)
    else:
        # Escaped: a colon in the text is no parameter. On lines of its own: it may end in what opens a comment.
        text = trim(read_text(config, "query"), dialect).replace(":", "\\:")
        rows = sa.text(f"\n{text}\n").columns().subquery("source")
    wanted: list[sa.ColumnClause[Any]] = [sa.column(name) for name in columns]
    return (sa.select(*wanted) if wanted else sa.select(sa.text("*"))).select_from(rows)


def _read(
    connection: sa.Connection,
    config: Config,
    cursor: str,
    last: object,
    date_format: str,
    source: str,
    most: int,
) -> Fetched:
    """Read from the last cursor on, inclusive: rows with the same cursor may have been added since.

    A row without a cursor may be new whenever it is seen.
    """
    dialect = connection.dialect.name
    statement = _select(config, dialect)
    if last is not None:
        if isinstance(last, dt.date) and date_format:
            last = _write(last, connection.scalar(_some(config, dialect, cursor)), date_format)
        column: sa.ColumnClause[Any] = sa.column(cursor)
        statement = statement.where((column >= sa.bindparam("last", last)) | column.is_(None))
    result = connection.execution_options(stream_results=True, max_row_buffer=_BATCH).execute(statement)
    assert result.cursor is not None
    description = result.cursor.description  # gone once all is read
    wanted = {*read_mapping(config).values(), *([cursor] if cursor else [])} if config.get("columns") else ()
    rows = _fetch_rows(result, most, source)
    with without_content(f"{source}: its rows do not form a table"):
        return make_table(description, rows, wanted, source)


def _fetch_rows(result: sa.CursorResult[Any], most: int, source: str) -> list[sa.Row[Any]]:
    """Return all rows.

    Raises:
        SourceNotAllowed: their values take more than `most` bytes.
    """
    rows: list[sa.Row[Any]] = []
    size = 0
    while part := result.fetchmany(_BATCH):
        size += sum(len(value) if isinstance(value, str | bytes) else _SIZE for row in part for value in row)
        if size > most:
            raise too_large(source, most)
        rows += part
    return rows


def _some(config: Config, dialect: str, cursor: str) -> sa.Select[Any]:
    """Return any value of the cursor."""
    return _select(config, dialect, cursor).where(sa.column(cursor).is_not(None)).limit(1)


def _write(date: dt.date, like: object, date_format: str) -> object:
    """Write a date in the source's own notation, taken from an example: only then do they compare."""
    if isinstance(like, str | int):
        text = date.strftime(date_format)
        return text if isinstance(like, str) else int(text)
    if isinstance(like, dt.datetime) and like.tzinfo is not None:
        # The day began up to 26 hours earlier: ours may be UTC+14, and the database's session, which reads this
        # date, at UTC-12. What was read already is read again.
        return date - dt.timedelta(days=2)
    return date


def _fetch(config: Config, cursor: str, last: object, date_format: str, source: str) -> Fetched:
    def read(connection: sa.Connection, most: int) -> Fetched:
        return _read(connection, config, cursor, last, date_format, source, most)

    return _ask(config, source, read)


def _ask(config: Config, source: str, ask: Callable[[sa.Connection, int], _T]) -> _T:
    """Return what is found in the database; `ask` gets a connection, and how many bytes it may read."""
    allowed = access.current()
    secrets = BoundSecrets(allowed)
    url, shown_host = _read_url(config, secrets)
    with databases.connect(allowed, secrets, url, shown_host) as connection:
        try:
            return ask(connection, allowed.policy.max_bytes)
        except exc.DBAPIError as error:
            why = describe_query_error(error, config)
            if error.connection_invalidated:
                raise SourceUnavailable(f"the connection was lost: {why}") from None
            raise InvalidQuery(f"{source}: {why}") from None
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise SchemaMismatch(
                f"{source}: its columns do not form a table ({type(error).__name__})"
            ) from None


def _read_url(config: Config, secrets: BoundSecrets) -> tuple[sa.URL, str]:
    """Return the database's address, and its host for errors. Filled in after parsing: a password may hold any character."""
    text = read_text(config, "url")
    try:
        if "://" not in text:  # all of it is a secret
            return sa.make_url(secrets.fill(text, "url")), "its host"
        url = sa.make_url(text)
    except (exc.ArgumentError, ValueError):
        raise InvalidConfig("url: must be like postgresql+psycopg://user@host/database") from None
    given = [url.password, *(value for name, value in url.query.items() if name.lower() in _PASSWORDS)]
    if any(value and not has_placeholder(str(value)) for value in given):
        raise InvalidConfig(f"url: a password must be a reference like ${{{PREFIX}...}}, not plain text")

    def fill(value: str | None) -> str | None:
        return None if value is None else secrets.fill(value, "url")

    shown = url.host or ""
    return url.set(
        username=fill(url.username),
        password=fill(url.password),
        host=fill(url.host),
        database=fill(url.database),
        query={name: secrets.fill(str(value), "url") for name, value in url.query.items()},
    ), shown


def _merge(base: pl.DataFrame, new: pl.DataFrame, keys: list[str], source: str) -> pl.DataFrame:
    check_columns(keys, new.columns, source)
    try:
        before, after = align(to_zones(base, zones_of(new), "UTC"), new)
    except SchemaMismatch as error:
        raise SchemaMismatch(f"{source}: {error}") from None
    return pl.concat([before, after]).unique(keys, keep="last", maintain_order=True)
