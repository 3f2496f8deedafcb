"""What a check of a schema compiles and keeps is bounded, whatever the schema."""

from typing import Any

import pytest

from instance_service import jsonschema_adapter
from instance_service.domain.check_costs import MOST_STEPS
from instance_service.jsonschema_adapter import config_violations, schema_violations
from optaic.plugins import patterns

_ITEMS_OF_PATTERNS = {"properties": {"x": {"items": {"format": "regex"}}}}
_OPTIONAL = {"properties": {"x": {"items": {"anyOf": [{"format": "regex"}, {"type": "string"}]}}}}


def _large_patterns(count: int) -> list[str]:
    return [rf"\pL{{1,13}}x{number}" for number in range(count)]


def _compiled() -> int:
    return patterns._compiled.cache_info().misses


def test_a_schema_of_many_large_patterns_takes_too_many_steps() -> None:
    before = _compiled()
    schema: dict[str, Any] = {"patternProperties": {pattern: {} for pattern in _large_patterns(1_000)}}
    (violation,) = schema_violations(schema, "s")
    assert violation.description == f"takes more than {MOST_STEPS} steps to check; shorten it"
    assert _compiled() - before < 200


@pytest.mark.parametrize("last", ["", "{99}"])
@pytest.mark.parametrize("schema", [_ITEMS_OF_PATTERNS, _OPTIONAL])
def test_many_large_patterns_in_a_config_are_refused_in_time(schema: dict[str, Any], last: str) -> None:
    before = _compiled()
    config = {"x": [rf"(\pL{{1,13}}){last}y{number}" for number in range(1_000)]}
    found = config_violations(f"patterns {schema}", schema, config, "c")
    assert found
    assert _compiled() - before < 800


def test_small_patterns_may_be_many() -> None:
    schema: dict[str, Any] = {"patternProperties": {f"^[a-z]+{number}$": {} for number in range(2_000)}}
    assert schema_violations(schema, "s") == []


def test_the_validator_of_a_large_schema_is_not_kept() -> None:
    kept = jsonschema_adapter._kept_validator
    kept.cache_clear()
    for count, expected in ((1_000, 0), (10, 1)):
        schema = {"properties": {f"member_{number}": {"type": "number"} for number in range(count)}}
        assert config_violations(f"{count} members", schema, {"member_1": "x"}, "c")
        assert kept.cache_info().currsize == expected
