"""Formats of JSON Schema 2020-12: each by its RFC, whatever packages are installed."""

from typing import Any

import jsonschema
import pytest

from instance_service.domain.formats import FORMATS
from instance_service.domain.schema_messages import shown
from instance_service.jsonschema_adapter import KNOWN_FORMATS, config_violations, schema_violations
from instance_service.resources.definitions.changes import unchecked_formats
from optaic.definition.v1.definition_pb2 import DefinitionVersion

_OF_THE_STANDARD = [
    "date-time",
    "date",
    "time",
    "duration",
    "email",
    "idn-email",
    "hostname",
    "idn-hostname",
    "ipv4",
    "ipv6",
    "uri",
    "uri-reference",
    "iri",
    "iri-reference",
    "uuid",
    "uri-template",
    "json-pointer",
    "relative-json-pointer",
    "regex",
]
_VALUES: dict[str, tuple[list[str], list[str]]] = {
    "date": (["2024-02-29", "0001-01-01"], ["2023-02-29", "20240229", "2024-2-9", "٢٠٢٤-02-29", "2024-02-29Z"]),
    "time": (
        ["10:30:00Z", "16:00:00-05:00", "10:30:00.123456789z", "23:59:60Z", "18:59:60-05:00"],
        ["10:30:00", "10:30", "24:00:00Z", "10:60:00Z", "10:30:61Z", "22:59:60Z", "10:30:00+5", "1٢:30:00Z", ""],
    ),
    "date-time": (
        ["2024-01-01T00:00:00Z", "1998-12-31t23:59:60.9z", "2024-02-29T10:30:00+05:30"],
        ["yesterday", "2024-01-01", "2024-01-01 00:00:00Z", "2024-01-01T00:00:00", "2023-02-29T00:00:00Z"],
    ),
    "duration": (
        ["P1D", "P4DT12H30M5S", "PT0S", "P2W", "P1Y2M3D", "PT36H"],
        ["soon", "P", "PT", "1D", "P1H", "P1Y2D", "PT1H2S", "P1.5D", "P1W2D", "P-1D", "٢D"],
    ),
    "email": (
        ["a@b", "te~st@example.com", '"joe blogs"@example.com', "joe@[127.0.0.1]", "joe@[IPv6:::1]"],
        ["x", ".a@b", "a..b@c", "a@b@c", "a@-b", "a@[127.0.0.300]", "ä@example.com", "a b@c", "x" * 65 + "@b"],
    ),
    "idn-email": (["실례@실례.테스트", "a@b"], ["x", "@ä"]),
    "hostname": (
        ["a", "db-1.example.org", "9.example", "xn--bcher-kva.example", "a" * 63],
        ["-bad-", "a_b", "a..b", "a.", "", "a" * 64, "bücher.example", "xn--x", ".".join(["a" * 60] * 5)],
    ),
    "idn-hostname": (["bücher.example", "실례。테스트", "a.b"], ["-ä", "ä..b", "\u302e실례", "0a.\u05d0"]),
    "ipv4": (["192.0.2.1"], ["192.0.2", "192.0.2.256", "192.0.02.1", "1.2.3.4/24", "1.2.3.٤"]),
    "ipv6": (["::1", "2001:db8::192.0.2.1"], ["1::2::3", ":::", "fe80::1%eth0", "12345::", "1:2:3:4:5:6:7"]),
    "uri": (
        ["s3://b/k", "file:///data/a%20b.csv", "urn:x:y", "http://[::1]:80/?a=b#c", "postgresql://u:p@h:5432/d"],
        ["not a uri", "//h/p", "a/b", "http://[::1", "http://h:x/", "http://ä/", "s3://b/a%2", "1a:b", "http://a\\b"],
    ),
    "uri-reference": (["../k?x=1#y", "", "a/b:c", "//h/p"], ["a b", "1a:b", "\\\\host\\x", "#a#b", "ä"]),
    "iri": (["https://example.org/bücher", "urn:ä"], ["bücher", "https://a b/"]),
    "iri-reference": (["../bücher", "#ä"], ["a b", "a\\b"]),
    "uri-template": (["/p/{symbol}/{?q*,r:3}", "{+x}", ""], ["{", "}", "{}", "{a b}", "a b"]),
    "uuid": (
        ["f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6"],
        ["x", "f81d4fae7dec11d0a76500a0c91e6bf6", "{f81d4fae-7dec-11d0-a765-00a0c91e6bf6}"],
    ),
    "json-pointer": (["", "/a/0", "/a~1b/m~0n", "/"], ["a", "/~2", "/~", "#/a"]),
    "relative-json-pointer": (["0", "1/a", "2#", "0+1/a"], ["/a", "-1", "01/a", "0##", ""]),
    "regex": (["^[A-Z]+$"], ["(", "(?=a)b"]),
}  # fmt: skip
_CASES = [
    (name, value, is_good)
    for name, (good, bad) in _VALUES.items()
    for values, is_good in ((good, True), (bad, False))
    for value in values
]


def _violations(word: str, value: Any) -> list[tuple[str, str]]:
    schema = {"properties": {"v": {"format": word}}}
    return [
        (each.field, each.description) for each in config_violations(f"f {word}", schema, {"v": value}, "c")
    ]


@pytest.mark.parametrize(("word", "value", "is_good"), _CASES)
def test_a_format_accepts_exactly_the_texts_of_its_rfc(word: str, value: str, is_good: bool) -> None:
    assert [field for field, _ in _violations(word, value)] == ([] if is_good else ["c.v"])


def test_every_format_of_the_standard_counts_and_no_other() -> None:
    assert {*_OF_THE_STANDARD, "optaic-expression"} == KNOWN_FORMATS
    assert set(_VALUES) == set(_OF_THE_STANDARD)


@pytest.mark.parametrize("word", _OF_THE_STANDARD)
def test_a_format_accepts_values_that_are_not_texts(word: str) -> None:
    values: list[Any] = [None, True, 3, 2.5, [], {}]
    for value in values:
        assert not _violations(word, value)


@pytest.mark.parametrize("word", sorted(FORMATS))
def test_a_refusal_names_the_rule_and_an_example_that_is_right(word: str) -> None:
    assert FORMATS[word].is_kept(FORMATS[word].example)
    bad = _VALUES[word][1][0]
    assert _violations(word, bad) == [
        ("c.v", f"{shown(bad)} is not {FORMATS[word].rule}, for example {FORMATS[word].example}")
    ]


@pytest.mark.parametrize("word", sorted(FORMATS))
def test_a_long_text_is_checked_in_linear_time(word: str) -> None:
    for text in (
        "a" * 50_000,
        "a:" * 25_000,
        "/a" * 25_000,
        "1" * 50_000 + "!",
        "%61" * 20_000 + " ",
        "ä" * 50_000,
    ):
        FORMATS[word].is_kept(text)


def test_formats_do_not_depend_on_installed_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(jsonschema.FormatChecker.checkers, "color", (lambda _: False, ()))
    assert not _violations("color", "mauve")


def test_an_unknown_format_checks_nothing_and_is_reported() -> None:
    version = DefinitionVersion()
    version.parameters_schema.update(
        {
            "properties": {
                "format": {"format": "datetime"},
                "b": {"format": "date"},
                "c": {"items": {"format": "color"}},
            }
        }
    )
    version.output_schema.update({"properties": {"x/y": {"format": "Date"}}})
    assert not _violations("datetime", "whatever")
    assert unchecked_formats(version) == [
        (
            "/parameters_schema/properties/c/items/format",
            "'color' is not a format of JSON Schema 2020-12, so it checks nothing",
        ),
        (
            "/parameters_schema/properties/format/format",
            "'datetime' is not a format of JSON Schema 2020-12, so it checks nothing; did you mean 'date-time'?",
        ),
        (
            "/output_schema/properties/x~1y/format",
            "'Date' is not a format of JSON Schema 2020-12, so it checks nothing; did you mean 'date'?",
        ),
    ]


def test_a_schema_that_was_published_before_is_still_one() -> None:
    assert not schema_violations({"$id": "not a uri", "properties": {"a": {"format": "datetime"}}}, "s")
