"""Mistakes are named exactly where they are, and nothing but a typed error ever comes out."""

import random
import subprocess
import sys
from dataclasses import replace

import polars as pl
import pytest

from optaic.expression import (
    FIRST_OPERATORS,
    MAX_DEPTH,
    MAX_LENGTH,
    MAX_NODES,
    OPERATORS,
    Binary,
    Call,
    Column,
    ExpressionError,
    Negate,
    Number,
    Reason,
    Signature,
    Text,
    parse,
)
from optaic.expression.compiler import evaluate
from optaic.expression.operators import NAMES_ELSEWHERE
from optaic.plugins import SchemaMismatch


def test_the_momentum_signal_parses_to_its_tree() -> None:
    ref = OPERATORS["REF"]
    near, far = (Call(ref, (Column("close"),), (n,)) for n in (21.0, 252.0))
    expression = parse("zscore( Ref(close,21)/REF(close, 252) - 1 )")
    assert expression.root == Call(
        OPERATORS["ZSCORE"], (Binary("-", Binary("/", near, far), Number(1.0)),), ()
    )
    assert expression == parse("ZSCORE(REF(close, 21) / REF(close, 252) - 1)")
    assert list(expression.columns) == ["close"]


def _first_release() -> dict[str, Signature]:
    """The operators as a worker of the first release knows them."""
    found = {}
    for name in FIRST_OPERATORS:
        known = OPERATORS[name]
        parameters = tuple(each for each in known.parameters if each.name != "min_periods")
        found[name] = replace(known, parameters=parameters, has_group=False)
    return found


@pytest.mark.parametrize(
    "text",
    ["FFILL(close, 3)", "MEAN(close, 5, 2)", "DEMEAN(close, sector)", "MEAN(close, n=5, min_periods=2)"],
)
def test_a_worker_that_does_not_know_an_argument_or_operator_refuses_it(text: str) -> None:
    parse(text)
    with pytest.raises(ExpressionError):
        parse(text, _first_release())
    assert parse("STD(PCT(close, 1), 20)", _first_release()).text == "STD(PCT(close, 1), 20)"


def test_a_name_of_another_language_is_no_name_of_this_one() -> None:
    assert not set(NAMES_ELSEWHERE) & set(OPERATORS)
    assert set(NAMES_ELSEWHERE.values()) <= set(OPERATORS)


def test_defaults_of_parameters_are_filled_in() -> None:
    assert parse("WINSORIZE(close)") == parse("WINSORIZE(close, 0.05)")


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("MEAN(close, 5)", "MEAN(close, 5, 5)"),
        ("MEAN(close, 5, 2)", "MEAN(close, 5, min_periods=2)"),
        ("MEAN(close, 5, 2)", "mean(close, min_periods=2, n=5)"),
        ("WINSORIZE(close, sector)", "WINSORIZE(close, 0.05, sector)"),
        ("WINSORIZE(close, sector, 0.1)", "WINSORIZE(close, p=0.1, group=sector)"),
        ("COUNT(close, 5)", "COUNT(close, 5, 0)"),
        ("QUANTILE(close, 5, 0.5)", "QUANTILE(close, 5, q=0.5, min_periods=5)"),
        ("HUMP(close)", "HUMP(close, 0.01)"),
    ],
)
def test_optional_arguments_stand_in_their_place_or_have_their_name(text: str, same: str) -> None:
    assert parse(text) == parse(same)


def test_a_group_is_a_column_after_the_value_and_columns_may_have_the_names_of_operators() -> None:
    assert parse("RANK(count, if)").root == Call(OPERATORS["RANK"], (Column("count"), Column("if")), ())
    assert list(parse("DEMEAN(close, refs.sector)").columns) == ["close", "refs.sector"]


def test_a_text_is_compared_and_keeps_its_quotes() -> None:
    assert parse("name == 'O''Neill'").root == Binary("==", Column("name"), Text("O'Neill"))
    assert parse("'a' != sector").root == Binary("!=", Text("a"), Column("sector"))


def test_unary_minus_binds_weaker_than_power_and_stronger_than_product() -> None:
    assert parse("-a ^ b").root == Negate(Binary("^", Column("a"), Column("b")))
    assert parse("-a * b").root == Binary("*", Negate(Column("a")), Column("b"))


@pytest.mark.parametrize(
    ("text", "reason", "position", "part"),
    [
        ("", Reason.EMPTY, 0, "empty"),
        ("  \n ", Reason.EMPTY, 4, "empty"),
        ("close +", Reason.UNEXPECTED_END, 7, "found the end"),
        ("close close", Reason.UNEXPECTED_TOKEN, 6, "unexpected 'close'"),
        ("(close", Reason.UNEXPECTED_END, 6, "close the parenthesis"),
        ("close)", Reason.UNEXPECTED_TOKEN, 5, "unexpected ')'"),
        ("close ** 2", Reason.UNEXPECTED_TOKEN, 7, "written ^"),
        ("+close", Reason.UNEXPECTED_TOKEN, 0, "found '+'"),
        ("close = 1", Reason.UNEXPECTED_CHARACTER, 6, "equality is =="),
        ("close $ 1", Reason.UNEXPECTED_CHARACTER, 6, "'$'"),
        ("clöse", Reason.UNEXPECTED_CHARACTER, 2, "'ö'"),
        ("a < b < c", Reason.UNEXPECTED_TOKEN, 6, "cannot be chained"),
        ("MEEN(close, 3)", Reason.UNKNOWN_OPERATOR, 0, "did you mean MEAN"),
        ("1 + foo(close)", Reason.UNKNOWN_OPERATOR, 4, "known: ABS"),
        ("Close", Reason.INVALID_NAME, 0, "'close'"),
        ("MEAN", Reason.WRONG_ARGUMENT_COUNT, 0, "MEAN(x, n)"),
        ("MEAN(close)", Reason.WRONG_ARGUMENT_COUNT, 10, "needs 2 arguments, 1 given"),
        ("MEAN()", Reason.WRONG_ARGUMENT_COUNT, 5, "0 given"),
        (
            "MEAN(close, 3, 4)",
            Reason.WRONG_ARGUMENT,
            15,
            "min_periods of MEAN(x, n, min_periods=n) must be at most n, which is 3, not 4",
        ),
        (
            "MEAN(close, 3, 2, 1)",
            Reason.WRONG_ARGUMENT_COUNT,
            18,
            "too many arguments: MEAN(x, n, min_periods=n)",
        ),
        ("MEAN(close, 3, 0)", Reason.WRONG_ARGUMENT, 15, "between 1 and 10000"),
        ("MEAN(close, 3, min_period=2)", Reason.WRONG_ARGUMENT, 15, "did you mean min_periods?"),
        ("MEAN(close, 3, min_periods=4)", Reason.WRONG_ARGUMENT, 27, "must be at most n"),
        ("MEAN(close, n=3, n=4)", Reason.WRONG_ARGUMENT, 17, "is given twice"),
        ("MEAN(close, n=3, 2)", Reason.WRONG_ARGUMENT, 17, "by name too: min_periods"),
        ("MEAN(n=3)", Reason.WRONG_ARGUMENT, 5, "takes x by place"),
        ("MEAN(close, min_periods=2)", Reason.WRONG_ARGUMENT_COUNT, 25, "n is missing"),
        ("(close = 1)", Reason.UNEXPECTED_TOKEN, 7, "equality is =="),
        ("RANK(close, 3)", Reason.WRONG_ARGUMENT, 12, "group of RANK(x, group=none) must be a column"),
        ("RANK(close, 'tech')", Reason.WRONG_ARGUMENT, 12, "must be a column"),
        ("RANK(close, group=3)", Reason.WRONG_ARGUMENT, 18, "must be a column"),
        ("RANK(close, sector, industry)", Reason.WRONG_ARGUMENT_COUNT, 20, "too many arguments"),
        ("MEAN(close, sector)", Reason.WRONG_ARGUMENT, 12, "must be a number"),
        ("sector == 'Energy", Reason.UNEXPECTED_CHARACTER, 10, "must end with a quote"),
        ("sector + 'Energy'", Reason.WRONG_ARGUMENT, 7, "the text 'Energy' is no number"),
        ("sector < 'Energy'", Reason.WRONG_ARGUMENT, 7, "sector == "),
        ("'Energy'", Reason.WRONG_ARGUMENT, 0, "is no number"),
        ("MEAN('Energy', 3)", Reason.WRONG_ARGUMENT, 0, "is no number"),
        ("-'Energy'", Reason.WRONG_ARGUMENT, 0, "is no number"),
        ("'" + "a" * 1001 + "' == sector", Reason.TOO_LONG, 0, "at most 1,000 characters"),
        ("QUANTILE(close, 5)", Reason.WRONG_ARGUMENT_COUNT, 17, "q is missing"),
        ("QUANTILE(close, 5, 1.5)", Reason.WRONG_ARGUMENT, 19, "between 0 and 1"),
        ("KURT(close, 3)", Reason.WRONG_ARGUMENT, 12, "between 4"),
        ("HUMP(close, 0)", Reason.WRONG_ARGUMENT, 12, "between"),
        (
            "IF(a > b, 1)",
            Reason.WRONG_ARGUMENT_COUNT,
            11,
            "IF(condition, x, y) needs 3 arguments, 2 given; y is missing",
        ),
        ("delay(close, 5)", Reason.UNKNOWN_OPERATOR, 0, "here it is REF(x, n)"),
        ("TS_MEAN(close, 5)", Reason.UNKNOWN_OPERATOR, 0, "here it is MEAN(x, n, min_periods=n)"),
        ("TS_RNK(close, 5)", Reason.UNKNOWN_OPERATOR, 0, "did you mean TS_RANK"),
        ("MEAN(close, n)", Reason.WRONG_ARGUMENT, 12, "must be a number"),
        ("MEAN(close, 2 + 1)", Reason.WRONG_ARGUMENT, 14, "plain number"),
        ("MEAN(close, 2.5)", Reason.WRONG_ARGUMENT, 12, "whole number, not 2.5"),
        ("MEAN(close, 0)", Reason.WRONG_ARGUMENT, 12, "between 1 and 10000"),
        ("REF(close, -5)", Reason.WRONG_ARGUMENT, 11, "not -5"),
        ("STD(close, 1)", Reason.WRONG_ARGUMENT, 11, "between 2"),
        ("WINSORIZE(close, 0.6)", Reason.WRONG_ARGUMENT, 17, "between 0 and 0.5"),
        ("MEAN(close 3)", Reason.UNEXPECTED_TOKEN, 11, "','"),
        ("MEAN(close, 3", Reason.UNEXPECTED_END, 13, "','"),
        ("MEAN(, 3)", Reason.UNEXPECTED_TOKEN, 5, "found ','"),
        ("1e999", Reason.INVALID_NUMBER, 0, "too large"),
        ("1.2.3", Reason.INVALID_NUMBER, 0, "malformed"),
        ("12months", Reason.INVALID_NUMBER, 0, "'12m'"),
        ("a" * 200, Reason.INVALID_NAME, 0, "at most 64"),
        ("1 +\n  close *\n  MEAM(close, 2)", Reason.UNKNOWN_OPERATOR, 16, "MEAM"),
    ],
)
def test_a_mistake_is_named_where_it_is(text: str, reason: Reason, position: int, part: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    error = caught.value
    assert (error.reason, error.position) == (reason, position)
    assert part in error.message
    lines = text[:position].split("\n")
    assert (error.line, error.column) == (len(lines), len(lines[-1]) + 1)
    shown, caret = error.render().split("\n")
    assert caret.endswith("^")
    if position < len(text):
        assert shown[len(caret) - 1] == text[position]


def test_an_error_of_a_long_line_shows_the_place_only() -> None:
    text = "close + " * 200 + "$" + " + close" * 200
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    shown, caret = caught.value.render().split("\n")
    assert len(shown) < 100
    assert shown[caret.index("^")] == "$"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1" * (MAX_LENGTH + 1), Reason.TOO_LONG),
        ("(" * (MAX_LENGTH // 2), Reason.TOO_DEEP),
        ("-" * MAX_LENGTH, Reason.TOO_DEEP),
        ("ABS(" * (MAX_LENGTH // 4), Reason.TOO_DEEP),
        ("2^" * (MAX_LENGTH // 2), Reason.TOO_DEEP),
        ("1+" * (MAX_DEPTH + 1) + "1", Reason.TOO_DEEP),
        ("+".join(["(" + "+".join(["x"] * 20) + ")"] * (MAX_NODES // 20)), Reason.TOO_COMPLEX),
        (" " * MAX_LENGTH, Reason.EMPTY),
    ],
    ids=lambda value: value if isinstance(value, Reason) else value[:6],
)
def test_an_expression_that_is_too_large_is_refused(text: str, reason: Reason) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert caught.value.reason is reason


def test_the_deepest_tree_can_be_walked_compared_and_shown() -> None:
    text = "ABS(" * (MAX_DEPTH - 1) + "x" + ")" * (MAX_DEPTH - 1)
    expression = parse(text)
    assert len(list(expression.walk())) == MAX_DEPTH
    assert expression == parse(text)
    assert hash(expression.root) == hash(parse(text).root)
    assert "abs" in repr(expression).lower()


def test_parsing_needs_the_standard_library_only() -> None:
    """A service that validates expressions must not pay for a data library."""
    code = (
        "import sys, optaic.expression, optaic.plugins; optaic.expression.parse('ZSCORE(close)');"
        "heavy = {'polars', 'numpy', 'pandas', 'pyarrow', 'deltalake'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_ambiguous_columns_must_be_qualified() -> None:
    expression = parse("1 - value")
    with pytest.raises(ExpressionError) as caught:
        expression.check_columns({"a.value", "b.value"}, {"value": ["a.value", "b.value"]})
    assert (caught.value.reason, caught.value.position) == (Reason.AMBIGUOUS_COLUMN, 4)
    assert "a.value or b.value" in caught.value.message
    parse("a.value - b.value").check_columns({"a.value", "b.value"}, {"value": ["a.value", "b.value"]})


VALID = [
    "ZSCORE(REF(close, 21) / REF(close, 252) - 1)",
    "-(close - open) / MAX(high - low, 3) ^ 2 >= 0.5e-1",
    "CORR(RANK(close), EMA(volume, 10), 60) * SIGN(DELTA(close, 1)) != 1",
    "WINSORIZE(SCALE(LOG(ABS(close))), 0.01) + prices.close",
    "IF(sector == 'Energy', QUANTILE(close, 20, 0.9, min_periods=5), HUMP(FILL(FFILL(close, 3), 0)))",
    "RESID(close, CLIP(open, low, high), 20, 10) / KURT(close, 9) - DEMEAN(close, sector)",
]
PIECES = [
    *OPERATORS,
    "close",
    "x.y",
    "1",
    "2.5",
    "-1",
    "1e3",
    "(",
    ")",
    ",",
    "+",
    "-",
    "*",
    "/",
    "^",
    "<",
    "<=",
    "==",
    "=",
    "'a'",
    "sector",
    "min_periods=3",
    " ",
    "\n",
]


def make_text(rng: random.Random) -> str:
    """Random characters, random tokens, or a valid text with some damage."""
    kind = rng.randrange(4)
    if kind == 0:
        return "".join(
            chr(rng.choice([rng.randrange(128), rng.randrange(0x3000), rng.randrange(0xD800)]))
            for _ in range(rng.randrange(40))
        )
    if kind == 1:
        return "".join(rng.choice(PIECES) for _ in range(rng.randrange(60)))
    if kind == 2:
        return "".join(rng.choice("()-^") for _ in range(rng.randrange(300))) + rng.choice(VALID)
    text = rng.choice(VALID)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(text))
        inserted = rng.choice(["", rng.choice(PIECES), text[place]])
        text = text[:place] + inserted + text[place + (not inserted) :]
    return text


def find_outcome(text: str, table: pl.DataFrame) -> str:
    """What a text gives; anything but a value or a typed error passes through as an exception."""
    try:
        height = evaluate(parse(text), table).height
    except ExpressionError as raised:
        error = raised
    except SchemaMismatch as raised:  # a text where a number must be: only the table tells
        return "text" if "text" in str(raised) else f"untold: {raised}"
    else:
        return "value" if height == table.height else "rows lost"
    assert 0 <= error.position <= len(text)
    assert str(error)
    return error.reason


def test_ten_thousand_random_texts_give_a_tree_or_a_typed_error() -> None:
    rng = random.Random(20221228)
    outcomes: dict[str, int] = {}
    names = ["close", "open", "high", "low", "volume", "prices.close", "x.y"]
    table = pl.DataFrame(
        {
            "date": [1, 1, 2],
            "entity": ["a", "b", "a"],
            "sector": ["a", None, "b"],
            **{name: [1.5, -2.0, None] for name in names},
        }
    )
    for _ in range(10_000):
        text = make_text(rng)
        outcome = find_outcome(text, table)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    # The texts reach far enough: both trees and nearly every kind of mistake occur.
    assert outcomes["value"] > 100
    assert "rows lost" not in outcomes
    assert len(outcomes) >= 10
    assert not any(outcome.startswith("untold") for outcome in outcomes)
