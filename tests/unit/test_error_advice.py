"""Every error that a service builds says what its reader can do."""

import importlib
import inspect
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, get_origin, get_type_hints

import pytest

from instance_service.domain import errors as instance_errors
from lineage_service.domain.keys import FlowKey
from servicekit.errors import DomainError

_SERVICES = ("instance_service", "lineage_service", "run_service", "status_service")
_GIVEN = {
    # Their caller writes the text.
    "refusal",
    "invalid_field",
    "invalid_fields",
    "unsupported_kind",
    "named_not_found",
    "dependency_unavailable",
    "model_version_not_found",
    # Their field violations say it.
    "immutable_fields",
    # The fault is in the service; its reader can do nothing.
    "dependency_refused",
}
_ENDS_OF_TICKS = "tick_"  # the recorded end of a scheduled time, as the policies of its instance demand


def _functions() -> Iterator[Callable[..., DomainError]]:
    for service in _SERVICES:
        module = importlib.import_module(f"{service}.domain.errors")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            is_own = function.__module__ == module.__name__ and not name.startswith("_")
            if is_own and name not in _GIVEN and not name.startswith(_ENDS_OF_TICKS):
                yield function


def _argument(kind: Any) -> object:
    """Return some value of an annotated type."""
    if isinstance(kind, types.UnionType):
        return _argument(kind.__args__[0])
    some = {
        datetime: datetime(2026, 1, 2, tzinfo=UTC),
        timedelta: timedelta(hours=6),
        FlowKey: FlowKey("i", "refresh"),
    }
    if kind in some:
        return some[kind]
    origin = get_origin(kind) or kind
    if origin is not str and issubclass(origin, Mapping):
        return {}
    if origin is not str and issubclass(origin, Collection):
        return []
    return {str: "retired", int: 1, float: 1.0, bool: True}[origin]


@pytest.mark.parametrize(
    "function", list(_functions()), ids=lambda function: f"{function.__module__}.{function.__name__}"
)
def test_the_message_of_an_error_says_what_to_do(function: Callable[..., DomainError]) -> None:
    hints = get_type_hints(function)
    names = inspect.signature(function).parameters
    message = function(**{name: _argument(hints[name]) for name in names}).message
    assert "; " in message or ": retired" in message, message


@pytest.mark.parametrize(
    ("present", "wanted", "target", "advice"),
    [
        ("draft", "active", "deprecated", "activate it first"),
        ("draft", "deprecated", "retired", "activate it first"),
        ("active", "deprecated", "retired", "deprecate it first"),
        ("deprecated", "draft", "active", "publish another version"),
        ("retired", "active", "deprecated", "publish another version"),
    ],
)
def test_a_refused_step_of_a_definition_names_both_states_and_the_way_on(
    present: str, wanted: str, target: str, advice: str
) -> None:
    error = instance_errors.invalid_version_state("smooth", "1.0.0", present, wanted, target)
    assert f"is {present}, but only a version that is {wanted} can become {target}; " in error.message
    assert advice in error.message
