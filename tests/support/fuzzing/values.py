"""Values that break programs which do not expect them, for each type of a field."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from buf.validate import validate_pb2

_LONG = 17_000
TEXTS: Sequence[str] = (
    "",
    " ",
    "\0",
    "a\0b",
    "\n\r\t",
    "\x1b[31m",
    "\u202etxt.exe",
    "مرحبا",
    "\ufeff",
    "\uffff",
    "\U0010ffff",
    "e\u0301",
    "ﬀ",
    "İ",
    "'; drop table instances; --",
    "%' or 1=1 --",
    "%s%s%n%d",
    ":tenant_id",
    "$1",
    "{0.__class__}",
    "{{7*7}}",
    "${OPTAIC_SECRET_X}",
    "../../../../etc/passwd",
    "file:///proc/self/environ",
    "C:\\windows\\system32",
    "http://169.254.169.254/latest/",
    "(a+)+$",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    "[" * 100,
    "(" * 2_000,
    "-" * 3_000 + "1",
    "REF(" * 500 + "close" + ",1)" * 500,
    "close + " * 500 + "close",
    "1e400",
    "NaN",
    "-0",
    "9" * 400,
    "0001-01-01",
    "9999-12-31",
    "10000-01-01",
    "2024-02-30",
    "0000-00-00",
    "* * * * *",
    "0 0 31 2 *",
    "0-59/1 */99 * * *",
    "* * * * * * * * *",
    "Europe/Berlin",
    "../Europe/Berlin",
    "/etc/localtime",
    "posixrules",
    "23:59",
    "XNYS",
    "*",
    "a.b.c.d",
    "dataset.pipeline.config",
    "dataset.pipeline.config.as_of",
    "labels",
    "spec",
    "1.0.0",
    "99999999999999999999.0.0",
    "1.0.0-" + "9" * 50,
    "builtin.definitions:Nothing",
    "os:system",
    "__import__('os')",
    "null",
    "true",
    "[]",
    "{}",
    '{"a": 1e999}',
    "00000000-0000-0000-0000-000000000000",
    "01900000-0000-7000-8000-000000000001",
    "01900000-0000-7000-8000-00000000000G",
    "01900000-0000-7000-8000-0000000000AB",
    "urn:uuid:01900000-0000-7000-8000-000000000001",
    "{01900000-0000-7000-8000-000000000001}",
    "x" * 128,
    "x" * 129,
    "x" * _LONG,
    "ü" * 2_000,
    "\U0001f600" * 500,
)
DOUBLES: Sequence[float] = (
    *(math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 0.5, 1e308, -1e308, 5e-324, 1e-7),
    *(2.0**53, 2.0**53 + 2, 2.0**63, -(2.0**63), 1e15, 100.0, 100.0000001, 1e22, 3.0),
)
_SIGNED = (0, 1, -1, 2, 3, 7, 99, 100, 1_000, 1_001, 10_000, 10_001)
_SECONDS = (
    *(0, 1, -1, 60, 86_400, 1_700_000_000, 4_102_444_800, -62_135_596_800, -62_135_596_801),
    *(253_402_300_799, 253_402_300_800, 10**17, -(10**17), 2**63 - 1, -(2**63)),
)
_DURATIONS = (0, 1, -1, 30, 604_800, 604_801, 31_622_400, 31_622_401, 315_576_000_000, 315_576_000_001)
_NANOS = (0, 0, 0, 1, -1, 999_999_999, 1_000_000_000, 2**31 - 1, -(2**31))
# JSON Schema that costs much, or nothing that anybody meant.
KEYWORDS: Sequence[str] = (
    *(
        "type",
        "properties",
        "items",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "$ref",
        "$dynamicRef",
    ),
    *(
        "$id",
        "$schema",
        "$anchor",
        "$defs",
        "pattern",
        "patternProperties",
        "propertyNames",
        "format",
        "enum",
    ),
    *(
        "const",
        "minimum",
        "maximum",
        "multipleOf",
        "minLength",
        "maxItems",
        "uniqueItems",
        "contains",
        "required",
    ),
    *("dependentSchemas", "unevaluatedProperties", "unevaluatedItems", "additionalProperties", "default"),
)


_PIECES: Sequence[str] = (
    *(
        "close",
        "prices.close",
        "REF(",
        "ZSCORE(",
        "RANK(",
        "MEAN(",
        "STD(",
        "CORR(",
        "WINSORIZE(",
        "BLEND(",
        "NOPE(",
        "(",
        ")",
        ")",
        ")",
        ", 1",
        ", 21",
    ),
    *(
        ", 1e308",
        ", -1",
        ", 0",
        ", ",
        " + ",
        " - ",
        " * ",
        " / ",
        " ** ",
        " > ",
        " and ",
        "1",
        "-",
        "0.5",
        "'x'",
        "[0]",
        ".",
        "x=1",
    ),
    *(
        "\n",
        "#",
        "@",
        "é",
        "None",
        "lambda: 1",
        "1e400",
        "x",
        "1_000",
        "0x10",
        "9" * 50,
        "not ",
        "==",
        ":=",
        "\\",
    ),
)
_CRON: Sequence[str] = (
    "*",
    "*/5",
    "0",
    "30",
    "1-5",
    "5-1",
    "1,2,3",
    "31",
    "60",
    "7",
    "JAN",
    "MON-FRI",
    "L",
    "?",
    "0-59/0",
    "#",
    "-1",
)


def formula(choices: random.Random) -> str:
    """Return something between an expression, a cron expression and nothing."""
    if choices.random() < 0.2:
        return " ".join(choices.choice(_CRON) for _ in range(choices.choice((5, 5, 5, 4, 6))))
    if choices.random() < 0.2:
        return "close".join(choices.choice(_PIECES) for _ in range(choices.choice((2, 10, 1_000))))[:10_001]
    return "".join(choices.choice(_PIECES) for _ in range(choices.randint(1, 12)))


def integer(choices: random.Random, bits: int, *, is_signed: bool) -> int:
    """Return an integer that a field of so many bits can hold."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
    value = choices.choice((*_SIGNED, low, high, low + 1, high - 1, choices.randint(low, high)))
    return int(min(max(value, low), high))


def seconds(choices: random.Random, *, is_duration: bool) -> tuple[int, int]:
    """Return the seconds and nanoseconds of a time or a duration, valid or not."""
    return choices.choice(_DURATIONS if is_duration else _SECONDS), choices.choice(_NANOS)


def rules_of(field: FieldDescriptor) -> Any:
    """Return the rules of a field in its contract; of a list, those of its items."""
    rules = field.GetOptions().Extensions[validate_pb2.field]
    return rules.repeated.items if field.is_repeated else rules


def text_at_limit(choices: random.Random, field: FieldDescriptor) -> str:
    """Return a text as long as a field allows, or one character longer, or shorter."""
    rules = rules_of(field).string
    most = rules.max_len or rules.max_bytes or 100
    letter = choices.choice(("x", "0", "é", "\U0001f600"))
    return letter * max(0, most + choices.choice((-1, 0, 0, 1)))


def json(choices: random.Random, texts: Sequence[str], depth: int = 0) -> Any:
    """Return JSON of any shape; some is a schema, some is deep or wide."""
    kind = choices.randrange(12 if depth < 4 else 6)
    value: Any
    if kind < 2:
        value = choices.choice(texts)
    elif kind < 4:
        value = choices.choice(DOUBLES)
    elif kind < 6:
        value = choices.choice((None, True, False, {}, [], "", 0))
    elif kind < 8:
        value = [json(choices, texts, depth + 1) for _ in range(choices.randint(0, 4))]
    elif kind == 8:
        value = nested(choices.choice((5, 14, 31, 32, 33)), choices)
    elif kind == 9:
        value = [choices.choice(DOUBLES)] * choices.choice((100, 1_000))
    else:
        names = KEYWORDS if choices.random() < 0.6 else texts
        value = {choices.choice(names): json(choices, texts, depth + 1) for _ in range(choices.randint(1, 5))}
    return value


def nested(levels: int, choices: random.Random) -> Any:
    """Return JSON of so many levels."""
    value: Any = choices.choice((1, "x", None))
    name = choices.choice(("a", "items", "not", "allOf", "properties"))
    for _ in range(levels):
        value = [value] if choices.random() < 0.5 else {name: value}
    return value
