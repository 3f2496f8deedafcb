"""The difference between two revisions of an instance, field by field."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from itertools import zip_longest
from typing import Any, NamedTuple

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Number, etag and times of the revision itself, and the ids in outside systems: a change of these makes no revision.
_NOT_COMPARED = frozenset({"revision", "etag", "create_time", "update_time", "conditions"})
_HANDLES = frozenset({"prefect_deployment_id", "mlflow_experiment_id", "evidently_project_id"})
_NAMES = frozenset({"name", "bound_name"})
_WITH_HANDLES = ("flows", "model", "dataset", "signal")


class Absent(Enum):
    """The marker of a field that is not set; `None` means JSON's null."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


class FieldDifference(NamedTuple):
    """A field that differs, with its old and new value."""

    path: str
    before: Any
    after: Any


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[FieldDifference]:
    """Return every field that differs between two snapshots of an instance, in the order of paths."""
    return list(_compare("", _content(before), _content(after)))


def _content(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    content = {key: value for key, value in snapshot.items() if key not in _NOT_COMPARED}
    if "upstream_refs" in content:  # the names of upstreams belong to the upstreams
        content["upstream_refs"] = [
            {key: value for key, value in ref.items() if key not in _NAMES}
            for ref in content["upstream_refs"]
        ]
    return {key: _plain(value) if key in _WITH_HANDLES else value for key, value in content.items()}


def _plain(value: Any) -> Any:
    """Return a part of a snapshot without the ids in outside systems; a config is kept as it is."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: each if key == "config" else _plain(each) for key, each in value.items() if key not in _HANDLES
    }


def _compare(path: str, before: Any, after: Any) -> Iterator[FieldDifference]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            named = f".{key}" if path else key
            where = path + (named if _NAME.fullmatch(key) else f"[{key!r}]")
            yield from _compare(where, before.get(key, ABSENT), after.get(key, ABSENT))
    elif isinstance(before, list) and isinstance(after, list):
        for index, (one, other) in enumerate(zip_longest(before, after, fillvalue=ABSENT)):
            yield from _compare(f"{path}[{index}]", one, other)
    elif before != after or isinstance(before, bool) != isinstance(after, bool):
        yield FieldDifference(path, before, after)
