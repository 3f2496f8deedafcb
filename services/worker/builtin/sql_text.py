"""Remove comments and semicolons after a query, so that it can be a subquery; does not check its SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator

from optaic.plugins import InvalidQuery

# Databases that take a backslash within a text for an escape.
_BACKSLASH = frozenset(
    {"mysql", "mariadb", "bigquery", "databricks", "hive", "clickhouse", "snowflake", "starrocks"}
)
_HASH_COMMENTS = frozenset({"mysql", "mariadb", "bigquery"})
_BRACKETS = frozenset({"mssql", "sqlite", "access"})
_DOLLARS = frozenset({"postgresql", "cockroachdb", "redshift", "duckdb", "snowflake"})


def trim(query: str, dialect: str) -> str:
    """Return the one statement of a query, without the semicolons and comments after it.

    Raises:
        InvalidQuery: there is no statement, a second one, or a comment without an end.
    """
    begin, end, is_over = 0, 0, False
    for start, text, is_word in _tokens(query, dialect):
        if text == ";":
            is_over = end > 0
        elif is_word:
            if is_over:
                raise InvalidQuery(
                    f"the query: a second statement begins at character {start + 1}; give one SELECT statement"
                )
            begin, end = begin if end else start, start + len(text)
    if not end:
        raise InvalidQuery("the query: it has only comments; give one SELECT statement")
    return query[begin:end]


def _tokens(query: str, dialect: str) -> Iterator[tuple[int, str, bool]]:
    """Yield the position and text of each token that is not blank, and whether it has a meaning in SQL."""
    pattern, place = _pattern(dialect), 0
    while place < len(query):
        found = pattern.match(query, place)
        if found is None:  # or a text without an end: the database reports it
            if query.startswith("/*", place) and not query.startswith("/*!", place):
                raise _never_ends(place)
            yield place, query[place], not query[place].isspace()
            place += 1
            continue
        if found.lastgroup == "block" and dialect == "postgresql":
            end = _end_of_nested(query, place)
        else:
            end = found.end()
        if found.lastgroup not in {"line", "block"}:
            yield place, query[place:end], True
        place = end


def _end_of_nested(query: str, place: int) -> int:
    """Return the end of a comment that contains other comments."""
    depth = 0
    for mark in re.compile(r"/\*|\*/").finditer(query, place):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    raise _never_ends(place)


def _never_ends(place: int) -> InvalidQuery:
    return InvalidQuery(f"the query: the comment that begins at character {place + 1} never ends")


def _pattern(dialect: str) -> re.Pattern[str]:
    escaped = r"(?:[^'\\]|''|\\.)*"
    parts = [
        f"'{escaped}'" if dialect in _BACKSLASH else "'(?:[^']|'')*'",
        f'"{escaped.replace(chr(39), chr(34))}"' if dialect in _BACKSLASH else '"(?:[^"]|"")*"',
        "`[^`]*`",
    ]
    if dialect in _DOLLARS:
        parts.insert(0, rf"(?<!\w)[eE]'{escaped}'")
        parts.append(r"(?<!\w)\$(?P<tag>\w*)\$.*?\$(?P=tag)\$")
    if dialect in _BRACKETS:
        parts.append(r"\[[^\]]*\]")
    # MySQL executes what a comment of this kind holds, and takes two dashes for a comment before a blank only.
    is_mysql = dialect in {"mysql", "mariadb"}
    # PostgreSQL ends a comment at a carriage return, others do not: what follows one is kept for the database to judge.
    line = r"--(?=\s|$)[^\r\n]*" if is_mysql else r"--[^\r\n]*"
    if dialect in _HASH_COMMENTS:
        line += r"|\#[^\r\n]*"
    block = r"/\*.*?\*/"
    if is_mysql:
        parts.append(r"/\*!.*?\*/")
    return re.compile(rf"(?P<quoted>{'|'.join(parts)})|(?P<line>{line})|(?P<block>{block})", re.DOTALL)
