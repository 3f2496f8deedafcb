"""Check the names of a table's columns, so that every store, schema and event can carry them; no table is read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from optaic.plugins import InvalidColumnName

_LONGEST = 1000  # characters


def check_column_names(names: Sequence[str], known: Collection[str] = ()) -> None:
    """Refuse names that some store or message cannot carry.

    Args:
        names: of all columns.
        known: those of the version before. Names that are stored already are accepted.

    Raises:
        InvalidColumnName: naming each such column by its place, and what is wrong with its name.
    """
    if problems := [*_problems(names), *_twins(names, known)]:
        raise InvalidColumnName(f"{'; '.join(problems)}; rename these columns")


def check_source_names(names: Sequence[str]) -> None:
    """Refuse names that do not identify a column of the source; similar names are no problem yet.

    Raises:
        InvalidColumnName: naming each such column by its place, and what is wrong with its name.
    """
    if problems := list(_problems(names)):
        raise InvalidColumnName(f"{'; '.join(problems)}; rename these columns in the source")


def _problems(names: Sequence[str]) -> Iterator[str]:
    return (text for place, name in enumerate(names, 1) if (text := _problem(place, name)))


def _twins(names: Sequence[str], known: Collection[str]) -> Iterator[str]:
    """Yield names that many a store and database takes for one."""
    first: dict[str, tuple[int, str]] = {}
    for place, name in enumerate(names, 1):
        other, twin = first.setdefault(name.lower(), (place, name))
        if other != place and not {twin, name} <= set(known):
            yield f"the names of columns {other} and {place} differ only in capital letters"


def _problem(place: int, name: str) -> str:
    if not name:
        return f"column {place} has no name"
    if "\0" in name:  # Arrow takes it for the end of the text, and then ends the process
        return f"column {place} has the character NUL in its name"
    if name == "*" or (name.startswith("^") and name.endswith("$")):  # polars: columns of such names get lost
        return f"column {place} has a name that reads as a pattern of names"
    if any("\ud800" <= character <= "\udfff" for character in name):
        return f"column {place} has half of a surrogate pair in its name"
    if len(name) > _LONGEST:
        return f"column {place} has a name of {len(name)} characters; {_LONGEST} are allowed"
    return ""
