"""Write and read the names of columns and tables in expressions; nothing else is parsed here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from optaic.expression.errors import ExpressionError
from optaic.expression.lexer import tokenize

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_PART = re.compile(r'[A-Za-z_][A-Za-z0-9_]*|"((?:[^"]|"")*)"')


def spell(name: str) -> str:
    """Write one name: as it is where that is a lower-case identifier, else in double quotes, a quote in it doubled."""
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def spell_column(table: str, column: str) -> str:
    """Write a column of a table, for example `"sig-a".value`."""
    return f"{spell(table)}.{spell(column)}"


def spellings(column: str) -> tuple[str, ...]:
    """Return the ways to write a column without its table; a name with a dot may be written in two parts."""
    is_dotted = all(_PLAIN.fullmatch(part) for part in column.split(".")) and column.count(".") == 1
    return (spell(column), column) if is_dotted else (spell(column),)


def read_parts(word: str) -> tuple[str, ...]:
    """Return the names that a word is made of: a column, or a table and its column."""
    return tuple(
        part.group(0) if part.group(1) is None else part.group(1).replace('""', '"')
        for part in _PART.finditer(word)
    )


def rename_tables(text: str, names: Mapping[str, str]) -> str:
    """Return an expression's text with other names of tables, and nothing else changed.

    Args:
        text: good or bad; a bad one is returned as it is.
        names: the new name of each table that has one, by the name that it has in the text.
    """
    try:
        tokens = tokenize(text)
    except ExpressionError:
        return text
    pieces, done = [], 0
    for token in tokens:
        parts = read_parts(token.text) if token.is_name else ()
        if len(parts) == 2 and parts[0] in names:  # noqa: PLR2004 - a table and its column
            pieces += [text[done : token.position], spell_column(names[parts[0]], parts[1])]
            done = token.position + len(token.text)
    return "".join([*pieces, text[done:]])


def find_namesakes(names: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the names that several inputs have, with their ids, of pairs of a name and the id of the input."""
    ids: dict[str, dict[str, None]] = {}
    for name, instance_id in names:
        ids.setdefault(name, {})[instance_id] = None
    return {name: list(found) for name, found in ids.items() if len(found) > 1}
