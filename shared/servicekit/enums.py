"""Convert between protobuf enums and the lower-case words that databases and texts use for them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper

    _Number = TypeVar("_Number", bound=int)

_UNSPECIFIED = "UNSPECIFIED"


def enum_word(enum: _EnumTypeWrapper[Any], number: int) -> str:
    """Convert a number of an enum into its word: `FLOW_KIND_REFRESH` is `refresh`, 0 is `unspecified`.

    Raises:
        ValueError: The enum has no such number.
    """
    word = _words(enum).get(number)
    if word is None:
        raise ValueError(f"{enum.DESCRIPTOR.full_name} has no number {number}")
    return word


def enum_number(enum: _EnumTypeWrapper[_Number], word: str) -> _Number:
    """Convert a word into the number of an enum: `refresh` is `FLOW_KIND_REFRESH`; the empty word, too, is 0.

    Raises:
        ValueError: The enum has no such word.
    """
    try:
        return _numbers(enum)[word]  # type: ignore[no-any-return]  # a cast costs as much as the rest
    except KeyError:
        raise ValueError(f"{enum.DESCRIPTOR.full_name} has no word {word}") from None


@lru_cache
def _words(enum: _EnumTypeWrapper[Any]) -> dict[int, str]:
    """Return the words by number; the first name, without UNSPECIFIED, is the prefix of all names."""
    values = enum.DESCRIPTOR.values
    prefix = values[0].name.removesuffix(_UNSPECIFIED)
    return {value.number: value.name.removeprefix(prefix).lower() for value in values}


@lru_cache
def _numbers(enum: _EnumTypeWrapper[Any]) -> dict[str, Any]:
    return {"": 0} | {word: number for number, word in _words(enum).items()}
