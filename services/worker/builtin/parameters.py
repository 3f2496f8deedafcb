"""Read typed values from a configuration; an error has the path of the wrong field. No default is defined here."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence

from optaic.plugins import InvalidConfig
from optaic.plugins.words import describe_value

Config = Mapping[str, object]


def read_section(config: Config, name: str) -> Config:
    """Read a nested mapping; empty if it is absent."""
    value = config.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidConfig(f"{name}: must be an object, not {describe_value(value)}")
    return value


def read_text(config: Config, name: str, default: str | None = None) -> str:
    """Read a text that is not empty; required without a default."""
    value = config.get(name)
    value = default if value is None or value == "" else value
    if not isinstance(value, str):
        raise InvalidConfig(
            f"{name}: must be a text" + ("" if value is None else f", not {describe_value(value)}")
        )
    return value


def read_choice(config: Config, name: str, choices: Sequence[str], default: str | None = None) -> str:
    """Read one of several allowed texts; required without a default."""
    value = read_text(config, name, default)
    if value not in choices:
        raise InvalidConfig(f"{name}: must be one of {', '.join(choices)}, not {describe_value(value)}")
    return value


def read_number(
    config: Config,
    name: str,
    default: float | None = None,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
) -> float:
    """Read a finite number between bounds, both included; required without a default."""
    value = config.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidConfig(f"{name}: must be a finite number, not {describe_value(value)}")
    if not minimum <= value <= maximum:
        raise InvalidConfig(f"{name}: must be between {minimum:g} and {maximum:g}, not {value:g}")
    return float(value)


def read_whole(config: Config, name: str, default: int | None = None, *, minimum: int, maximum: int) -> int:
    """Read a whole number; JSON and protobuf hold it as a float."""
    value = read_number(config, name, default, minimum=minimum, maximum=maximum)
    if not value.is_integer():
        raise InvalidConfig(f"{name}: must be a whole number, not {value:g}")
    return int(value)


def read_flag(config: Config, name: str) -> bool:
    """Read true or false; required."""
    value = config.get(name)
    if not isinstance(value, bool):
        raise InvalidConfig(f"{name}: must be true or false, not {describe_value(value)}")
    return value


def read_names(config: Config, name: str) -> tuple[str, ...]:
    """Read a list of distinct texts; empty if the parameter is absent."""
    value = config.get(name)
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise InvalidConfig(f"{name}: must be a list of texts, not {describe_value(value)}")
    if len(set(value)) != len(value):
        raise InvalidConfig(f"{name}: lists the same name twice; list it once")
    return tuple(value)


def read_date(config: Config, name: str) -> dt.date | None:
    """Read a date (YYYY-MM-DD); None if it is absent."""
    value = config.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return value
    try:
        return dt.date.fromisoformat(str(value))
    except ValueError:
        raise InvalidConfig(f"{name}: must be a date like 2022-12-28, not {describe_value(value)}") from None
