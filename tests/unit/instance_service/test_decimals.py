"""`multipleOf`: what people mean by 0.01, not what binary fractions make of it."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_service.domain.schema_diff import diff
from instance_service.jsonschema_adapter import config_violations, schema_violations
from optaic.rules.numbers import is_multiple


def _is_taken(value: Any, factor: float) -> bool:
    schema = {"properties": {"v": {"multipleOf": factor}}}
    assert not schema_violations(schema, "s")
    return not config_violations(f"m {factor!r}", schema, {"v": value}, "c")


@pytest.mark.parametrize(
    ("factor", "taken", "refused"),
    [
        (
            0.01,
            [0.05, 4.02, 0.07, 0.29, 1.11, 19.99, -4.02, 0, 3, 1e300, "4.025", True],
            [0.005, 4.025, 1e-7],
        ),
        (0.1, [0.3, 1e22, 123456.7], [0.30000000000000004, 0.35]),
        (1e-7, [1e-7, 3e-7, 0.1, 1e300], [1.5e-7, 1e-8, 5e-324]),
        (5e-324, [5e-324, 1e-300, 1.7976931348623157e308], []),
        (1e300, [0, 1e300, 2e300, 1e301], [1, 1.5e300]),
        (2.5, [5, 7.5], [6, 2.4]),
        (3, [9, 3.0, -6], [10, 3.1]),
    ],
)
def test_a_multiple_is_one_in_decimals(factor: float, taken: list[Any], refused: list[Any]) -> None:
    assert [value for value in taken if not _is_taken(value, factor)] == []
    assert [value for value in refused if _is_taken(value, factor)] == []


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6), st.integers(0, 6))
def test_only_whole_numbers_of_steps_are_multiples(count: int, tick: int, places: int) -> None:
    factor = Decimal(tick).scaleb(-places)
    assert is_multiple(float(count * factor), float(factor))
    assert is_multiple(float((count + Decimal("0.5")) * factor), float(factor)) is False


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_a_number_is_not_a_multiple(value: float) -> None:
    assert not is_multiple(value, 0.01)


@pytest.mark.parametrize(
    ("before", "after", "is_breaking"),
    [(0.01, 0.005, False), (0.3, 0.1, False), (0.01, 0.003, True), (0.1, 0.3, True), (1, 0.1, False)],
)
def test_a_finer_multiple_is_compatible_and_a_coarser_one_is_not(
    before: float, after: float, is_breaking: bool
) -> None:
    (change,) = diff({"multipleOf": before}, {"multipleOf": after})
    assert change.is_breaking is is_breaking
