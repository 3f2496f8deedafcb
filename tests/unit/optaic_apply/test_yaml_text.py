"""YAML 1.2's core schema, where everything stands, and back without a change."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from instance_service.domain.schema_messages import describe_rule_for_secret
from optaic.apply import yaml_text
from optaic.apply.documents import MANAGER, read_documents
from optaic.apply.export import Definitions, export_documents
from optaic.apply.plan import Existing, make_plan
from optaic.cli.documents import placing, read_yaml
from optaic.definition.v1 import definition_pb2
from optaic.errors import InvalidArgumentError, InvalidConfigError, Violation
from optaic.instance.v1 import instance_pb2
from support.command_line import invoke


def _read(text: str) -> Any:
    (value,) = yaml_text.read(text, "desk.yaml").values
    return value


@pytest.mark.parametrize(
    ("word", "value"),
    [
        *[(word, word) for word in ("10:30", "1:30", "ON", "on", "off", "yes", "No", "y", "n", "2024-01-01", "=")],
        *[(word, word) for word in ("1_000", "0b11", "0x", "1e", "e3", "1.2.3", "tRUE", "Null!", "+", ".", "1 2")],
        *[(word, word) for word in ("2024-01-01T00:00:00Z", "190:20:30", "1:2", "٣", "0o8", "-0o7", "-0x1F")],
        ("1e-3", 0.001), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("-1.5e+3", -1500.0), ("012", 12), ("0700", 700),
        ("0o14", 12), ("0x1F", 31), ("+7", 7), ("-0", 0), (".inf", math.inf), ("-.INF", -math.inf),
        ("~", None), ("null", None), ("NULL", None), ("true", True), ("FALSE", False),
        ("'7'", "7"), ('"true"', "true"), ("'~'", "~"), ("!!str 7", "7"), ('!!int "7"', 7), ("!!float 7.0", 7.0),
    ],
)  # fmt: skip
def test_plain_words_are_read_by_the_yaml_core_schema(word: str, value: Any) -> None:
    found = _read(f"a: {word}\nb: [{word}]\n")
    assert [found["a"], *found["b"]] == [value, value]
    assert type(found["a"]) is type(value)


def test_nan_is_read_as_a_number() -> None:
    assert math.isnan(_read("a: .nan")["a"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is used twice"),
        ('a: {x: 1, "x": 2}', "line 1: the key 'x' is used twice"),
        ("b: 1\n7: x", 'line 2: a key must be text; write "7" in quotes'),
        ("true: x", 'a key must be text; write "true"'),
        ("~: x", "a key must be text"),
        ("? [a]\n: x", "a key must be text"),
        ("a: !!binary aGk=", "the tag !!binary is not supported; remove it"),
        ("a: !mine {b: 1}", "the tag !mine is not supported; remove it"),
        ("a: !!python/object:os.system {}", "is not supported; remove it"),
        ("a: !!int x", "'x' is not a value of its tag !!int"),
        ("a: !!set {x}", "the tag !!set is not supported; remove it"),
        ("a: &a [*a]", "the value contains itself through an alias"),
        ("a: &a {b: {c: *a}}", "the value contains itself through an alias"),
        ("x: 1\na: [1, 2", "line 2: not valid YAML"),
        ("a: *b", "not valid YAML"),
        ("a: b: c", "not valid YAML"),
        ("<<: 3", "'<<' needs a mapping"),
        ("a: {<<: {x: 1}, <<: {y: 1}}", "the key '<<' is used twice in one mapping; give it a list instead"),
        ("a: 1\nb: \x00", "line 2: the character U+0000 is not allowed; write it as an escape"),
        ("a: 1\nb: x\u2028y", 'line 2: write the character U+2028 as "\\u2028", in double quotes'),
        ("a: 1e999", "too large for a number"),
        (f"a: {'9' * 500}", "more than 400 digits"),
        ("a: " + "[" * 150 + "]" * 150, "nested too deep"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deep"),
    ],
)
def test_an_invalid_document_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"desk\.yaml") as caught:
        yaml_text.read(text, "desk.yaml")
    assert said in str(caught.value)
    assert "yaml." not in str(caught.value)


def test_aliases_that_double_and_double_are_bounded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 12)]
    with pytest.raises(ValueError, match=r"more than 200000 values \(values of aliases count\)"):
        yaml_text.read("\n".join(lines), "desk.yaml")


def test_merges_and_aliases_of_honest_size_are_taken() -> None:
    found = _read("base: &b {x: 1, y: 2}\na: {<<: *b, y: 3}\nc: {<<: [{x: 9}, *b]}\nd: [*b, *b]\ne: '<<'")
    assert (found["a"], found["c"]) == ({"x": 1, "y": 3}, {"x": 9, "y": 2})
    assert found["d"] == [{"x": 1, "y": 2}] * 2
    assert found["e"] == "<<"


def test_empty_documents_are_left_out_and_json_is_read() -> None:
    assert yaml_text.read("---\n---\na: 1\n...\n---\n~\n", "f").values == [{"a": 1}]
    value = {"a": [1, 2.5, None, True, "x\u2029y"], "b": {"c": "\U0001f4c8"}}
    assert _read(json.dumps(value)) == value


_DESK = """\
project: desk
manager: t
instances:
  - name: x
    {}
"""


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("labels: {live: yes, version: 1.10}", ["instances[0].labels.version: must be text, not the number 1.1",
            'line 5: 1.10 is a number; to make it text write "1.10"']),
        ("labels: [a]", ["labels: must be a mapping, not a list"]),
        ("owner: true", ["owner: must be text, not true", 'to make it text write "true"']),
        ("description: [x]", ["description: must be text, not a list"]),
        ("definition_version: 1.10", ["definition_version: must be text, not the number 1.1"]),
        ("track_newest: 'true'", ["track_newest: must be true or false, not the text 'true'",
            '"true" is text in quotes; without them it is a truth value']),
        ("track_newest: 1", ["must be true or false, not the number 1"]),
        ("track_newest: yes", ["must be true or false, not the text 'yes'"]),
        ("config: 3", ["config: must be a mapping, not the number 3"]),
        ("config: {a: .inf}", ["config.a: must be a finite number", "line 5"]),
        ("config: {a: [12345678901234567]}", ["config.a[0]: 12345678901234567 is beyond 2^53", "write it as text"]),
        ("backtest: {config: {transaction_costs: '1e-3'}}",
            ["backtest.config.transaction_costs: must be a number, not the text '1e-3'",
             '"1e-3" is text in quotes; without them it is a number']),
        ("backtest: {config: {top_n: 2.5}}", ["top_n: must be a whole number, not the number 2.5"]),
        ("backtest: {config: {top_n: 1e20}}", ["top_n: must be between"]),
        ("schedule: {manual: {}, overlap_policy: skipp}", ["must be one of", "'skipp'; did you mean skip?"]),
        ("backtest: {assets: {universe: AAPL}}", ["universe: must be a list"]),
        ("schedule: {retry_policy: {delay: 1:30}}", ["delay: must be a number of seconds, not the text '1:30'"]),
        ("schedule: {retry_policy: {delay: 1e300}}", ["delay: must be a number of seconds within the range of a duration, not 1e+300"]),
        ("schedule: {interval: 5}", ["interval: must be a mapping"]),
        ("name2: on", ["name2: is not a known field"]),
        ("upstreams: {input: 7}", ["upstreams.input: must be the name of an instance", "to make it text write"]),
    ],
)  # fmt: skip
def test_a_wrong_value_is_an_error_with_file_line_and_advice(
    tmp_path: Path, field: str, said: list[str]
) -> None:
    file = tmp_path / "desk.yaml"
    file.write_text(_DESK.format(field))
    result = invoke("diff", "-f", str(file), status=2)
    for each in [*said, f"{file}, line 5"]:
        assert each in result.stderr
    for word in (
        "NoneType",
        "argument type",
        "json_format",
        "Struct",
        "<class",
        "ParseError",
        "object",
        "Value(",
    ):
        assert word not in result.stderr


def test_words_with_another_meaning_in_yaml_1_1_stay_texts(tmp_path: Path) -> None:
    found = yaml_text.read(
        _DESK.format(
            "labels: {live: yes, on: 'off'}\n    schedule: {interval: {minutes: 30, window_start: 10:30, window_end: 16:00}}\n"
            "    backtest: {config: {transaction_costs: 1e-3}, assets: {universe: [AAPL, ON, NO]}}"
        ),
        str(tmp_path),
    )
    (document,) = read_documents(found.values)
    instance = document.instances[0].instance
    assert dict(instance.labels) == {"live": "yes", "on": "off"}
    assert instance.schedule.interval.window_start == "10:30"
    assert instance.backtest.config.transaction_costs == 0.001
    assert list(instance.backtest.assets.universe) == ["AAPL", "ON", "NO"]


# Whatever a service stores: any text but NUL, and no half characters.
_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30) | st.sampled_from(
    [
        "",
        " ",
        "  a ",
        "\t",
        "a\tb",
        "\n",
        "a\n",
        "\na\n\n",
        "a \n b",
        "1e-3",
        "yes",
        "No",
        "0x1F",
        "0o14",
        "012",
        "~",
        "2024-01-01",
        "10:30",
        "null",
        "<<",
        "=",
        "- a",
        "a: b",
        "#",
        " #x",
        "'",
        '"',
        "\\",
        "%",
        "@",
        "`",
        "|",
        ">",
        "\u2028",
        "a\u2029b",
        "\x85",
        "\ufeff",
        "\ufeffa",
        "\x7f",
        "\x1b[31m",
        "\r",
        "\r\n",
        "a\rb",
        "...",
        "---",
        "?",
        "!x",
        "📈",
        "\ufffe",
        "*a",
        "&a",
        "{",
        "}",
        "[",
        ",",
        "x" * 300,
        "word " * 60,
        ".inf",
        "1_0",
        "0b1",
        "+.5",
        "1.",
    ]
)
_NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,20}", fullmatch=True) | st.sampled_from(
    ["on", "y", "null", "e1", "No"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)


def _exported(existing: Existing) -> str:
    stream = io.StringIO()
    yaml_text.write(export_documents(existing, definitions=Definitions.NONE), stream)
    return stream.getvalue()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_applying_an_export_changes_nothing_with_any_texts(data: st.DataObject) -> None:
    draw = data.draw
    project = draw(_NAMES)
    definition = definition_pb2.DefinitionVersion(version="1.0.0", definition_name="expression")
    prices = instance_pb2.Instance(
        instance_id="11111111-1111-4111-8111-111111111111", project_id="p", name="A" + draw(_NAMES)
    )
    prices.dataset.pipeline.definition_name = draw(_TEXTS.filter(bool))
    prices.dataset.pipeline.definition_version = draw(_TEXTS)
    prices.dataset.timezone = draw(_TEXTS)
    reader = instance_pb2.Instance(
        instance_id="22222222-2222-4222-8222-222222222222", project_id="p", name="B" + draw(_NAMES)
    )
    reader.definition_name = "m"
    reader.model.SetInParent()
    reader.upstream_refs.add(resource_id=prices.instance_id, role=draw(_TEXTS.filter(bool)))
    for each in (prices, reader):
        each.description, each.owner = draw(_TEXTS), draw(_TEXTS)
        each.labels.update(
            draw(st.dictionaries(_TEXTS.filter(lambda key: key != MANAGER), _TEXTS, max_size=3))
        )
        each.labels[MANAGER] = draw(_TEXTS.filter(bool))
        each.schedule.cron.expression, each.schedule.cron.timezone = draw(_TEXTS), draw(_TEXTS)
    prices.dataset.pipeline.config.update(draw(st.dictionaries(_TEXTS, _JSON, max_size=3)))
    reader.config.update(draw(st.dictionaries(_TEXTS, _JSON, max_size=3)))
    # The names are not looked up here: the definitions are those that the instances name.
    known = {(1, prices.dataset.pipeline.definition_name): [definition]}
    known |= {(kind, name): [definition] for kind, name in ((2, "delta"), (3, "simple"), (6, "m"))}
    existing = Existing({project: "p"}, known, {}, [prices, reader])
    text = _exported(existing)
    found = yaml_text.read(text, "export.yaml")
    assert make_plan(read_documents(found.values), existing) == []
    assert _exported(existing) == text


@given(st.dictionaries(_TEXTS, _JSON, max_size=4))
def test_written_documents_are_read_unchanged_by_yaml_1_1_and_1_2(value: dict[str, Any]) -> None:
    stream = io.StringIO()
    yaml_text.write([value], stream)
    assert _read(stream.getvalue()) == value
    assert yaml.safe_load(stream.getvalue()) == value


def test_a_mistake_in_a_document_is_reported_once() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_documents([{"project": "p", "manager": "m", "instances": [{"name": True, "model": {}}]}])
    assert [each.field for each in caught.value.violations] == ["documents[0].instances[0].name"]


@pytest.mark.parametrize("keyword", ["writeOnly", "type"])
@pytest.mark.parametrize("written", ["48151623", '"48151623"'])
def test_a_refused_secret_that_looks_like_a_number_is_not_repeated(
    tmp_path: Path, keyword: str, written: str
) -> None:
    file = tmp_path / "desk.yaml"
    file.write_text(f"config:\n  pin: {written}\n  rows: {written}\n")
    said = {"pin": describe_rule_for_secret(keyword, "string"), "rows": "is not of type array"}
    refused = [
        Violation(f"documents[0].config.{name}", text, "INVALID_CONFIG") for name, text in said.items()
    ]
    with pytest.raises(InvalidConfigError) as caught, placing(read_yaml(file)):
        raise InvalidConfigError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_CONFIG", "refused", refused)
    pin, rows = (each.description for each in caught.value.violations)
    assert "desk.yaml, line 2" in pin
    assert "48151623" not in pin
    assert "48151623" in rows
