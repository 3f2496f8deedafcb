"""The parameters of a run: dates must have the workers' format, and errors do not show Python values."""

from __future__ import annotations

import pytest

from run_service.domain.parameters import check_parameters
from servicekit.errors import InvalidArgumentError


@pytest.mark.parametrize(
    "value",
    ["2024-1-5", "20240105", "2024-W01-5", "2024-02-30", " 2024-01-05", "", 20240105.0, True, None, ["x"]],
)
def test_a_parameter_that_is_not_a_date_is_refused_at_once(value: object) -> None:
    with pytest.raises(InvalidArgumentError) as refusal:
        check_parameters("refresh", {"start": value}, is_full=False)
    (violation,) = refusal.value.field_violations
    assert violation.field == "parameters.start"
    assert "YYYY-MM-DD" in violation.description
    assert not {"None", "True", "20240105.0", "['x']"} & set(violation.description.split())


@pytest.mark.parametrize("value", [None, 1.0, "yes", ["x"]])
def test_a_parameter_that_is_not_a_boolean_is_refused_without_its_value(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="must be true or false"):
        check_parameters("refresh", {"repin_types": value}, is_full=True)


def test_a_range_of_dates_is_accepted() -> None:
    check_parameters("refresh", {"start": "2024-02-29", "end": "2024-03-01"}, is_full=False)
