"""CSV files as columns of texts, each row with its place in the file; it knows no types."""

from __future__ import annotations

import codecs
import csv
import io
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import polars as pl

from optaic.plugins import InvalidConfig, SchemaMismatch, UnparsableData
from optaic.plugins.words import describe_columns, describe_value
from worker.builtin.column_names import check_source_names
from worker.builtin.parameters import Config, read_text

_CHUNK = 50_000  # rows that are texts of Python at once
_BREAK = re.compile("\r\n|\r|\n")


@dataclass(frozen=True)
class CsvFormat:
    """The format of a CSV file: its separator, quotes and encoding."""

    delimiter: str = ","
    quote: str = '"'  # empty: quotes are characters like others
    encoding: str = "utf-8"
    skip_blank_lines: bool = True

    @staticmethod
    def from_config(config: Config) -> CsvFormat:
        """Read the format from a configuration.

        Raises:
            InvalidConfig: a property is malformed, or there is no such encoding.
        """
        encoding = read_text(config, "encoding", "utf-8")
        try:
            found = codecs.lookup(encoding)
        except (LookupError, ValueError):
            raise InvalidConfig(
                f"encoding: {encoding!r} is unknown; use a name that Python knows, such as utf-8"
            ) from None
        if not getattr(found, "_is_text_encoding", True):
            raise InvalidConfig(f"encoding: {encoding!r} is not a text encoding; use one such as utf-8")
        skips = config.get("skip_blank_lines", True)
        if not isinstance(skips, bool):
            raise InvalidConfig(f"skip_blank_lines: must be true or false, not {describe_value(skips)}")
        if "delimiter" in config and "separator" in config:
            raise InvalidConfig("separator: is the former name of `delimiter`; set only one of them")
        delimiter = _read_mark(config, "delimiter", _read_mark(config, "separator", ","))
        quote = _read_mark(config, "quote", '"')
        if not delimiter:
            raise InvalidConfig("delimiter: must be one character")
        if delimiter == quote:
            raise InvalidConfig(f"quote: {quote!r} is the delimiter as well; use another character")
        # A mark of the byte order is no part of the first column's name.
        name = "utf-8-sig" if found.name == "utf-8" else encoding
        return CsvFormat(delimiter, quote, name, skips)


def _read_mark(config: Config, name: str, default: str) -> str:
    value = config.get(name)
    value = default if value is None else value
    if not isinstance(value, str) or len(value) > 1 or value in {"\n", "\r", "\0"}:
        raise InvalidConfig(f"{name}: must be one character, not {describe_value(value)}")
    return value


@dataclass(frozen=True)
class CsvText:
    """The columns of a file, as they stand there; an empty value is null."""

    columns: pl.DataFrame
    blank_lines: int
    # Where rows and lines of the file stop to go along with rows of `columns`: from row, row in the file, line.
    _places: tuple[tuple[int, int, int], ...]

    def locate(self, row: int) -> str:
        """Return the line of a row as people count: from 1, with the header and blank lines."""
        start, file_row, line = self._places[bisect_right(self._places, (row, 1 << 62, 0)) - 1]
        file_row, line = file_row + row - start, line + row - start
        return f"row {file_row}" if file_row == line else f"row {file_row} (line {line} of the file)"


def read_csv_text(content: bytes, form: CsvFormat, wanted: Mapping[str, str], source: str) -> CsvText:
    """Return the columns of a file, under the result's names.

    Args:
        content: the file.
        form: how it is written.
        wanted: the result's names and the file's; empty: all under their own.
        source: what messages call the file.

    Raises:
        SchemaMismatch: a column is missing, or there twice.
        UnparsableData: it is no such file; naming the row.
    """
    reader = _Reader(content, form, source)
    header = reader.read_header()
    names = dict(wanted) or {name: name for name in header}
    if missing := [name for name in names.values() if name not in header]:
        raise SchemaMismatch(
            f"{source} has no column {', '.join(missing)} (it has {describe_columns(header)}); correct `columns`, `dates` or `delimiter`"
        )
    if repeated := [
        place for place, name in enumerate(header, 1) if name in names.values() and header.count(name) > 1
    ]:
        raise SchemaMismatch(
            f"{source} has columns of the same name, at the places {', '.join(map(str, repeated))}; rename all but one of each in the source"
        )
    check_source_names(list(names))
    indices = [header.index(name) for name in names.values()]
    parts = []
    for batch in reader.batches(len(header)):
        values = list(zip(*batch, strict=True))
        parts.append(
            pl.DataFrame(
                [pl.Series(name, values[i], pl.String) for name, i in zip(names, indices, strict=True)]
            )
        )
    empty = pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    columns = pl.concat(parts) if parts else empty
    columns = columns.with_columns(pl.all().replace("", None))
    return CsvText(columns, reader.blank_lines, tuple(reader.places))


class _Reader:
    """One pass over a file, with the position in it."""

    def __init__(self, content: bytes, form: CsvFormat, source: str) -> None:
        self._content, self._form, self._source = content, form, source
        self.blank_lines = 0
        self.places: list[tuple[int, int, int]] = []
        self._row = 0  # of the file, as a person counts: those that were read
        self._count = 0  # rows with values that were read
        dialect: dict[str, Any] = {"delimiter": form.delimiter, "strict": True}
        if form.quote:
            dialect["quotechar"] = form.quote
        else:
            dialect["quoting"] = csv.QUOTE_NONE
        # The limit is global and 128 kB by default, but longer texts are valid values.
        csv.field_size_limit(max(csv.field_size_limit(), len(content)))
        text = io.TextIOWrapper(io.BytesIO(content), encoding=form.encoding, newline="")
        self._csv = csv.reader(text, **dialect)

    def read_header(self) -> Sequence[str]:
        """Return the names of the columns; blank lines before them are no rows."""
        while rows := self._take(1):
            self._row += 1
            if not _is_blank(rows[0]):
                return rows[0]
        raise UnparsableData(f"{self._source} is empty; it needs a line with the names of the columns")

    def batches(self, width: int) -> Iterator[Sequence[Sequence[str]]]:
        """Yield the rows after the header; blank lines are left out, or are rows without values.

        Raises:
            UnparsableData: a row has more or fewer values than there are columns.
        """
        line = self._csv.line_num + 1
        while batch := self._take(_CHUNK):
            is_even = self._csv.line_num - line + 1 == len(batch) and set(map(len, batch)) == {width}
            if is_even and (width > 1 or all(map(len, batch))):
                self._note(line, self._row + 1)
                self._row += len(batch)
                self._count += len(batch)
                yield batch
            else:
                yield from self._take_apart(batch, line, width)
            line = self._csv.line_num + 1

    def _take_apart(
        self, batch: Sequence[Sequence[str]], line: int, width: int
    ) -> Iterator[Sequence[Sequence[str]]]:
        """Yield the rows of a batch in which some are blank, malformed or longer than a line."""
        rows: list[Sequence[str]] = []
        for row in batch:
            self._row += 1
            if _is_blank(row) and (width > 1 or not row):
                if self._form.skip_blank_lines:
                    self.blank_lines += 1
                    line += 1
                    continue
                row = [""] * width  # noqa: PLW2901 - a blank line is a row without values
            if len(row) != width:
                at = f"row {self._row}" + ("" if self._row == line else f" (line {line} of the file)")
                raise UnparsableData(
                    f"{self._source}: {at} has {len(row)} values but there are {width} columns; "
                    "check `delimiter` and `quote`"
                )
            self._note(line, self._row)
            self._count += 1
            rows.append(row)
            line += 1 + sum(len(_BREAK.findall(value)) for value in row)
        if rows:
            yield rows

    def _note(self, line: int, row: int) -> None:
        """Store the position of a row, unless the row directly follows the one before."""
        if self.places:
            count, last_row, last_line = self.places[-1]
            if (row - last_row, line - last_line) == (self._count - count, self._count - count):
                return
        self.places.append((self._count, row, line))

    def _take(self, count: int) -> list[list[str]]:
        rows: list[list[str]] = []
        try:
            rows.extend(islice(self._csv, count))
        except csv.Error as error:
            at = f"row {self._row + len(rows) + 1} (line {self._csv.line_num} of the file)"
            raise UnparsableData(
                f"{self._source} is not a readable CSV file: {at}: {error}; check `delimiter` and `quote`"
            ) from None
        except UnicodeError:
            raise UnparsableData(self._undecodable_error()) from None
        return rows

    def _undecodable_error(self) -> str:
        encoding, line = self._form.encoding, 0
        try:
            self._content.decode(encoding)
        except UnicodeDecodeError as error:
            line = self._content[: error.start].decode(encoding, "replace").count("\n") + 1
        except UnicodeError:  # no byte of it
            pass
        where = f"{self._source}: line {line}" if line else self._source
        return f"{where} is not valid {encoding.removesuffix('-sig')}; set `encoding`"


def _is_blank(row: Sequence[str]) -> bool:
    return not row or (len(row) == 1 and not row[0].strip())
