"""Scan a table from a place in it: the wanted rows in pieces, each row with its place."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from optaic.plugins.errors import OutOfRange, SchemaMismatch
from optaic.plugins.selection import select_rows
from optaic.rules.columns import DATE, ENTITY, KEYS
from optaic.tables.problems import TableError, not_read_here
from optaic.tables.table import Group, Selection, Table

_FILE, _GROUP, _ROW = PLACE = ("\0file", "\0group", "\0row")
_NO_NAME = re.compile(r"\*|\^.*\$|\0.*", re.DOTALL)  # polars reads a pattern in it, or it is that of a place
_MOST_VALUES = 1_000_000
_MOST_BYTES = 24 * 1024 * 1024  # of the rows of a page, as they are in memory
Encode = Callable[[pl.DataFrame], bytes]


@dataclass(frozen=True, order=True)
class Position:
    """A place in a table: a file, a group of rows in it, and a row of that."""

    file: int = 0
    group: int = 0
    row: int = 0


@dataclass(frozen=True)
class Page:
    """Rows as they are sent, and where the next ones begin; None: there are no more."""

    content: bytes
    rows: int
    following: Position | None


@dataclass(frozen=True)
class Piece:
    """Wanted rows of one group, and where the scan stands after them; None: at the end of the table."""

    rows: pl.DataFrame
    scanned: int
    after: Position | None


def names_of(table: Table, wanted: Selection) -> list[str]:
    """Return the columns of the answer: the keys always come along, and stand first.

    Raises:
        TableError: SCHEMA_MISMATCH, STORE_NOT_READ_HERE.
    """
    if strange := next((name for name in table.columns.columns if _NO_NAME.fullmatch(name)), None):
        raise not_read_here(f"the table has a column named {strange[:100]!r}")
    try:
        return select_rows(
            table.on_clocks(table.columns),
            columns=wanted.columns,
            entities=wanted.entities,
            start=wanted.start,
            end=wanted.end,
        ).columns
    except SchemaMismatch as error:
        raise TableError("SCHEMA_MISMATCH", str(error)) from None


def scan(table: Table, wanted: Selection, start: Position) -> Generator[Piece]:
    """Yield the wanted rows from a place on; each has the columns of `PLACE`, which say where it lies.

    After each file comes a piece without rows: whoever scans for a limited time can stop there, also where bounds exclude all rows.

    Raises:
        TableError: SCHEMA_MISMATCH, INVALID_PAGE_TOKEN.
    """
    names = names_of(table, wanted)
    needed = list(dict.fromkeys([*names, *_conditions(wanted)]))
    if start.file >= max(1, len(table.files)):
        raise no_such_page()
    nothing = _empty(table, names)
    for number, file in enumerate(table.files[start.file :], start.file):
        if not wanted.may_have(file.bounds):
            continue
        at = start if number == start.file else Position(number)
        end = Position(number + 1) if number + 1 < len(table.files) else None
        with file.open() as groups:
            for place, group in enumerate(groups[at.group :], at.group):
                if not wanted.may_have(group.bounds):
                    continue
                following = Position(number, place + 1) if place + 1 < len(groups) else end
                begin = at if place == at.group else Position(number, place)
                for rows, after in _read(table, group, needed, begin):
                    over = following if after.row == group.rows else after
                    yield Piece(_filter(rows, wanted, names), rows.height, over)
        yield Piece(nothing, 0, end)


def _read(
    table: Table, group: Group, needed: Sequence[str], begin: Position
) -> Iterator[tuple[pl.DataFrame, Position]]:
    """Yield the rows of a group from a place on, each with its place, and the place after them."""
    row = 0
    for piece in group.read(needed):
        first, row = row, row + piece.height
        if row <= begin.row:
            continue
        fresh = table.shape(piece.slice(max(0, begin.row - first)), needed)
        rows = fresh.with_columns(
            pl.lit(begin.file, pl.Int64).alias(_FILE),
            pl.lit(begin.group, pl.Int64).alias(_GROUP),
            pl.int_range(pl.len(), dtype=pl.Int64).alias(_ROW) + max(first, begin.row),
        )
        yield rows, Position(begin.file, begin.group, row)


def read_page(
    table: Table,
    wanted: Selection,
    start: Position,
    size: int,
    most_bytes: int,
    encode: Encode,
    is_over: Callable[[], bool],
) -> Page:
    """Return the next rows of a table, as many as a page may have; fewer where the time is over, and then perhaps none.

    Raises:
        TableError: SCHEMA_MISMATCH, INVALID_PAGE_TOKEN, ROW_TOO_LARGE.
    """
    names = names_of(table, wanted)
    size = max(1, min(size, _MOST_VALUES // max(1, len(names))))
    found: list[pl.DataFrame] = []
    following: Position | None = None
    missing, held = size, 0.0
    with contextlib.closing(scan(table, wanted, start)) as pieces:
        for piece in pieces:
            kept = piece.rows.head(missing)
            found.append(kept)
            missing -= kept.height
            held += kept.estimated_size()
            following = piece.after if kept.height == piece.rows.height else _after(kept)
            if not missing or held > _MOST_BYTES or is_over():
                break
        else:
            following = None
    rows = pl.concat(found) if found else _empty(table, names)
    return _fit(rows, names, following, most_bytes, encode)


def no_such_page() -> TableError:
    """Return the error of a page token that leads nowhere."""
    return TableError(
        "INVALID_PAGE_TOKEN",
        "page_token is no token of this table with these parameters; begin without a token",
        "page_token",
    )


def _fit(
    rows: pl.DataFrame, names: Sequence[str], following: Position | None, most_bytes: int, encode: Encode
) -> Page:
    """Return as many rows as fit into the bytes of a page."""
    count = rows.height
    while True:
        kept = rows.head(count)
        content = encode(kept.select(names))
        if len(content) <= most_bytes:
            return Page(content, count, following if count == rows.height else _after(kept))
        if count <= 1:
            raise TableError(
                "ROW_TOO_LARGE",
                f"one row has more than {most_bytes} bytes; name fewer columns in `columns`",
                "columns",
            )
        count = max(1, min(count - 1, int(count * most_bytes / len(content) * 0.9)))


def _after(rows: pl.DataFrame) -> Position:
    last = rows.row(-1, named=True)
    return Position(last[_FILE], last[_GROUP], last[_ROW] + 1)


def _conditions(wanted: Selection) -> Sequence[str]:
    by_entity = [ENTITY] if wanted.entities is not None else []
    return [*by_entity, *([DATE] if wanted.start or wanted.end else [])]


def _filter(placed: pl.DataFrame, wanted: Selection, names: Sequence[str]) -> pl.DataFrame:
    try:
        found = select_rows(
            placed,
            columns=[*(name for name in names if name not in KEYS), *PLACE],
            entities=wanted.entities,
            start=wanted.start,
            end=wanted.end,
        )
    except (SchemaMismatch, OutOfRange) as error:
        raise TableError("SCHEMA_MISMATCH", str(error)) from None
    return found.select(*names, *PLACE)


def _empty(table: Table, names: Sequence[str]) -> pl.DataFrame:
    columns = table.on_clocks(table.columns).select(names)
    return columns.with_columns(pl.lit(0, pl.Int64).alias(name) for name in PLACE).clear()
