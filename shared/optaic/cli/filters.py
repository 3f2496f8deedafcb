"""Read `--filter`: the filters of a list in one text, which mean the same as its options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated

import typer

from optaic.client.existence import near

FilterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        help="The filters of this list in one text, such as kind=signal,owner=ann,label.team=alpha,name=mom*: "
        "the names of its options, each with a value, apart by commas. All apply. May be repeated.",
    ),
]
_PREFIX = "name_prefix"


def combine(
    texts: Iterable[str] | None,
    words: Mapping[str, list[str] | None],
    single: Mapping[str, str] | None = None,
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the values of the options with those that the filters add.

    `words` may have several values, of which one must apply, or for `label` all; `single` has one at most.

    Raises:
        typer.BadParameter: A filter has another form, an unknown key, or a second value for what has one.
    """
    several = {key: list(values or ()) for key, values in words.items()}
    one = dict(single or {})
    keys = sorted({"label.NAME" if key == "label" else key for key in (*several, *one) if key != _PREFIX})
    for key, value in _pairs(texts or (), keys):
        if key.startswith("label.") and "label" in several:
            several["label"].append(f"{key.removeprefix('label.')}={value}")
        elif key in several and key != "label":
            several[key].append(value)
        elif key in one and key != _PREFIX:
            is_prefix = key == "name" and value.endswith("*")
            if key == "name" and "*" in value[:-1]:
                raise _wrong(
                    f"{value!r} has a * that is not at its end; a name is whole, or its beginning and a *"
                )
            if is_prefix and _PREFIX not in one:
                raise _wrong(
                    f"{key} must be whole here, without *; `optaic status list` finds names by their beginning"
                )
            _set(one, _PREFIX if is_prefix else key, value.removesuffix("*") if is_prefix else value)
        else:
            hint = near(key, keys) if get_close_matches(key, keys) else ""
            raise _wrong(f"{key!r} is no key here{hint}; the key must be one of {', '.join(keys)}")
    return several, one


def _pairs(texts: Iterable[str], keys: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        for pair in text.split(","):
            key, separator, value = (part.strip() for part in pair.partition("="))
            if key.endswith("!"):
                raise _wrong(f"{pair!r} excludes, which this list cannot; write key=value")
            if value.startswith("="):
                raise _wrong(f"{pair!r} has two equals signs; write {key}{value}")
            if not key or not separator or not value:
                raise _wrong(f"{pair!r} has not the form key=value; the key must be one of {', '.join(keys)}")
            yield key, value


def _set(single: dict[str, str], key: str, value: str) -> None:
    if single[key] not in {"", value}:
        which = "two beginnings of the name" if key == _PREFIX else f"{key} has two values"
        raise _wrong(f"{which}, {single[key]!r} and {value!r}; give one")
    single[key] = value


def _wrong(text: str) -> typer.BadParameter:
    return typer.BadParameter(text, param_hint="--filter")
