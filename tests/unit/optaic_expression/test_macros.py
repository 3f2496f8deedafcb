"""Macros become part of the expression that calls them; mistakes and explosions are caught where they are called."""

import datetime as dt

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optaic.expression import (
    MAX_NODES,
    Binary,
    Call,
    Column,
    Expression,
    ExpressionError,
    Macro,
    Negate,
    Number,
    Reason,
    check_macro,
    list_called,
    parse,
)
from optaic.expression.compiler import evaluate


def macros(**texts: str) -> dict[str, Macro]:
    """From `NAME="x, y: text"`."""
    found = {}
    for name, written in texts.items():
        parameters, _, text = written.partition(":")
        names = tuple(part.strip() for part in parameters.split(",") if part.strip())
        found[name] = Macro(name, names, text.strip())
    return found


LIBRARY = macros(
    MOMENTUM="x, long, short: ZSCORE(REF(x, short) / REF(x, long) - 1)",
    TWICE="x: x + x",
    FOUR="x: TWICE(TWICE(x))",
    SPREAD=": high - low",
    DROP="x: 1",
    BACK="x, n: REF(x, -n)",
)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("MOMENTUM(close, 252, 21)", "ZSCORE(REF(close, 21) / REF(close, 252) - 1)"),
        ("momentum(LOG(close) * 2, 5, 0)", "ZSCORE(REF(LOG(close) * 2, 0) / REF(LOG(close) * 2, 5) - 1)"),
        ("TWICE(a - b) * 3", "((a - b) + (a - b)) * 3"),  # a tree, no text: no parenthesis is needed
        ("FOUR(x)", "(x + x) + (x + x)"),
        ("SPREAD() / close", "(high - low) / close"),
        ("-TWICE(2) ^ 2", "-((2 + 2) ^ 2)"),
        ("DROP(RANK(close))", "1"),
        ("BACK(close, -3)", "REF(close, 3)"),
        ("x + TWICE(y)", "x + (y + y)"),  # the caller's x is not the macro's
    ],
)
def test_a_macro_call_equals_its_expression(text: str, expanded: str) -> None:
    assert parse(text, macros=LIBRARY) == parse(expanded)


def test_an_expanded_expression_computes_the_same() -> None:
    days = [dt.date(2020, 1, 1) + dt.timedelta(days=day) for day in range(9)]
    table = pl.DataFrame(
        [(day, entity, float(i * i + ord(entity))) for i, day in enumerate(days) for entity in "abc"],
        schema={"date": pl.Date, "entity": pl.String, "close": pl.Float64},
        orient="row",
    )
    called = evaluate(parse("MOMENTUM(close, 5, 1)", macros=LIBRARY), table)
    assert called.equals(evaluate(parse("ZSCORE(REF(close, 1) / REF(close, 5) - 1)"), table))
    assert called["value"].drop_nulls().len() == 12


@pytest.mark.parametrize(
    ("text", "reason", "position", "said"),
    [
        ("1 + NOPE(close)", Reason.UNKNOWN_OPERATOR, 4, "NOPE"),
        ("1 + MOMENTUN(close, 2, 1)", Reason.UNKNOWN_OPERATOR, 4, "did you mean MOMENTUM"),
        ("1 + TWICE()", Reason.WRONG_ARGUMENT_COUNT, 4, "needs 1 arguments, 0 given"),
        ("1 + TWICE(a, b)", Reason.WRONG_ARGUMENT_COUNT, 4, "needs 1 arguments, 2 given"),
        ("1 + SPREAD(a)", Reason.WRONG_ARGUMENT_COUNT, 4, r"SPREAD\(\)"),
        ("1 + TWICE", Reason.WRONG_ARGUMENT_COUNT, 4, "needs arguments"),
        ("1 + MOMENTUM(close, a, 1)", Reason.WRONG_ARGUMENT, 4, "in MOMENTUM.*must be a number"),
        ("1 + MOMENTUM(close, 2, 1 + 1)", Reason.WRONG_ARGUMENT, 4, "must be a number"),
        ("1 + MOMENTUM(close, 2.5, 1)", Reason.WRONG_ARGUMENT, 4, "whole number"),
        ("1 + BACK(close, 3)", Reason.WRONG_ARGUMENT, 4, "between"),
        ("1 + TWICE(a b)", Reason.UNEXPECTED_TOKEN, 12, r"TWICE\(x\)"),
        ("1 + TWICE(a", Reason.UNEXPECTED_END, 11, "the end"),
        ("1 + TWICE(FOUR())", Reason.WRONG_ARGUMENT_COUNT, 10, "FOUR"),
        ("1 + LOOP(a)", Reason.RECURSIVE_MACRO, 4, "LOOP > POOL > LOOP"),
        ("1 + SELF()", Reason.RECURSIVE_MACRO, 4, "SELF > SELF"),
        ("1 + BROKEN(a)", Reason.UNEXPECTED_END, 4, "in BROKEN"),
        ("1 + OUTER(a)", Reason.UNEXPECTED_END, 4, "in OUTER.*in BROKEN"),
        ("1 + MISSING(a)", Reason.UNKNOWN_OPERATOR, 4, "in MISSING.*GONE"),
    ],
)
def test_a_mistake_is_shown_in_the_callers_text(text: str, reason: Reason, position: int, said: str) -> None:
    library = LIBRARY | macros(
        LOOP="x: POOL(x)",
        POOL="x: LOOP(x)",
        SELF=": SELF() + 1",
        BROKEN="x: x +",
        OUTER="x: BROKEN(x)",
        MISSING="x: GONE(x)",
    )
    with pytest.raises(ExpressionError, match=said) as caught:
        parse(text, macros=library)
    assert (caught.value.reason, caught.value.position, caught.value.text) == (reason, position, text)


def test_columns_of_a_macro_are_placed_at_its_call() -> None:
    expression = parse("close +\n SPREAD()", macros=LIBRARY)
    assert dict(expression.columns) == {"close": 0, "high": 9, "low": 9}
    with pytest.raises(ExpressionError, match="high") as caught:
        expression.check_columns(["close"])
    assert (caught.value.line, caught.value.column) == (2, 2)


def test_size_is_that_of_the_tree_however_little_text_makes_it() -> None:
    doubling = {
        f"D{i}": Macro(f"D{i}", ("x",), f"D{i - 1}(x) + D{i - 1}(x)" if i else "x + x") for i in range(40)
    }
    assert len(list(parse("D7(x)", macros=doubling).walk())) == 511
    for text in ("D9(x)", "D39(x)", "TWICE(" * 40 + "x" + ")" * 40):
        with pytest.raises(ExpressionError) as caught:
            parse(text, macros=doubling | LIBRARY)
        assert caught.value.reason is Reason.TOO_COMPLEX


def test_work_is_bounded_where_its_result_is_dropped() -> None:
    wasteful = {"W0": Macro("W0", (), "1")} | {
        f"W{i}": Macro(f"W{i}", (), f"DROP(W{i - 1}()) + DROP(W{i - 1}())") for i in range(1, 30)
    }
    with pytest.raises(ExpressionError) as caught:
        parse("W29()", macros=wasteful | LIBRARY)
    assert caught.value.reason in {Reason.TOO_COMPLEX, Reason.TOO_DEEP}


def test_depth_is_bounded_over_macros() -> None:
    deep = {f"N{i}": Macro(f"N{i}", ("x",), f"N{i - 1}(x)" if i else "x") for i in range(200)}
    assert parse("N40(x)", macros=deep) == parse("x")
    negations = {f"N{i}": Macro(f"N{i}", ("x",), f"-N{i - 1}(x)" if i else "x") for i in range(200)}
    for library in (deep, negations):
        with pytest.raises(ExpressionError) as caught:
            parse("N199(x)", macros=library)
        assert caught.value.reason is Reason.TOO_DEEP


def test_an_operator_is_never_shadowed() -> None:
    assert parse("RANK(x)", macros=macros(RANK="x: 1")) == parse("RANK(x)")


@pytest.mark.parametrize("macro", LIBRARY.values(), ids=LIBRARY)
def test_a_good_macro_passes(macro: Macro) -> None:
    check_macro(macro, macros=LIBRARY)


@pytest.mark.parametrize(
    ("macro", "reason"),
    [
        (Macro("lower", (), "1"), Reason.INVALID_NAME),
        (Macro("RANK", ("x",), "x"), Reason.INVALID_NAME),
        (Macro("A", ("X",), "1"), Reason.INVALID_NAME),
        (Macro("A", ("x", "x"), "x"), Reason.INVALID_NAME),
        (Macro("A", ("x.y",), "1"), Reason.INVALID_NAME),
        (Macro("A", ("x",), ""), Reason.EMPTY),
        (Macro("A", ("x",), "x +"), Reason.UNEXPECTED_END),
        (Macro("A", ("x",), "A(x)"), Reason.RECURSIVE_MACRO),
        (Macro("A", ("x",), "NOPE(x)"), Reason.UNKNOWN_OPERATOR),
        (Macro("A", ("n",), "REF(close, m)"), Reason.WRONG_ARGUMENT),
        (Macro("A", ("x",), "MOMENTUM(x)"), Reason.WRONG_ARGUMENT_COUNT),
        (Macro("A", (), "1" * 20_000), Reason.TOO_LONG),
    ],
)
def test_a_bad_macro_is_refused(macro: Macro, reason: Reason) -> None:
    with pytest.raises(ExpressionError) as caught:
        check_macro(macro, macros=LIBRARY)
    assert caught.value.reason is reason


def test_a_macro_may_hand_its_numbers_on() -> None:
    library = LIBRARY | macros(YEAR="x, gap: MOMENTUM(x, 252, gap)")
    check_macro(library["YEAR"], macros=library)
    assert parse("YEAR(close, 21)", macros=library) == parse("MOMENTUM(close, 252, 21)", macros=library)


def test_called_names_are_found_without_their_definitions() -> None:
    assert list_called("rank(Foo(x) + bar * BAZ (FOO(1)), close") == ("FOO", "BAZ")
    assert list_called("close") == ()
    with pytest.raises(ExpressionError):
        list_called("A(§)")


NAMES = ["A", "B", "C", "D"]
leaves = st.sampled_from(["x", "y", "close", "1", "2.5", "-3"])
texts = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/^<"), inner),
        st.builds("{}({}, {})".format, st.sampled_from(NAMES), inner, inner),
        st.builds("{}({})".format, st.sampled_from([*NAMES, "RANK", "LOG"]), inner),
        st.builds("REF({}, {})".format, inner, st.sampled_from(["1", "x", "y"])),
    ),
    max_leaves=8,
)
libraries = st.fixed_dictionaries(
    {name: st.tuples(st.sampled_from([(), ("x",), ("x", "y")]), texts) for name in NAMES}
)


@settings(max_examples=300, deadline=None)
@given(text=texts, bodies=libraries)
def test_any_library_gives_a_bounded_tree_or_a_typed_error(
    text: str, bodies: dict[str, tuple[tuple[str, ...], str]]
) -> None:
    library = {name: Macro(name, parameters, body) for name, (parameters, body) in bodies.items()}
    found: Expression | ExpressionError
    try:
        found = parse(text, macros=library)
    except ExpressionError as error:
        found = error
    if isinstance(found, ExpressionError):
        assert found.text == text
        assert 0 <= found.position <= len(text)
        assert str(found)
        return
    nodes = list(found.walk())
    assert len(nodes) <= MAX_NODES
    for node in nodes:
        assert isinstance(node, Number | Column | Negate | Binary | Call)
        assert 0 <= node.position < len(text)
    hash(found)
    repr(found)


@settings(max_examples=300, deadline=None)
@given(
    garbage=st.text(alphabet="ABxy1,()+-* .", max_size=40), body=st.text(alphabet="ABxy1,()+-* ", max_size=20)
)
def test_garbage_is_a_typed_error_at_most(garbage: str, body: str) -> None:
    library = {"A": Macro("A", ("x",), body), "B": Macro("B", (), "x")}
    positions = []
    for attempt in (
        lambda: parse(garbage, macros=library),
        lambda: check_macro(library["A"], macros=library),
    ):
        try:
            attempt()
        except ExpressionError as error:
            positions.append(error.position)
    assert all(0 <= position <= max(len(garbage), len(body)) for position in positions)
