"""Names that are no lower-case identifiers, in quotes, and texts in which a table is called otherwise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optaic.expression import ExpressionError, parse, read_parts, rename_tables, spell, spell_column

NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ('"sig-a".value', ['"sig-a".value']),
        ('"SigA"."Adj Close"', ['"SigA"."Adj Close"']),
        ('"close" + close', ["close"]),
        ('"a.b".value + a."b"', ['"a.b".value', "a.b"]),
        ('MEAN("say ""x""", 5)', ['"say ""x"""']),
        ('"MEAN" * 2', ['"MEAN"']),
    ],
)
def test_a_name_in_quotes_is_a_column(text: str, columns: list[str]) -> None:
    assert list(parse(text).columns) == columns


@pytest.mark.parametrize("text", ['"', '""', '"open', '"a"."b"."c"', '"a"(1)', 'a"b"', '"a\nb"', "a."])
def test_a_quote_without_an_end_and_an_empty_name_are_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse(text)


def test_a_name_in_capitals_is_refused_with_the_way_to_write_it() -> None:
    with pytest.raises(ExpressionError, match=r'in quotes: "SigA"\.value'):
        parse("SigA.value + 1")


@given(NAMES, NAMES)
def test_every_name_can_be_written_and_read(table: str, column: str) -> None:
    assert read_parts(spell_column(table, column)) == (table, column)
    assert list(parse(spell(column)).columns) == [spell(column)]


def test_renaming_touches_the_names_of_tables_only() -> None:
    text = 'a.value - b.a + a + MEAN(a.b, 3) / "a"."x y"'
    renamed = rename_tables(text, {"a": "sig-a"})
    assert renamed == '"sig-a".value - b.a + a + MEAN("sig-a".b, 3) / "sig-a"."x y"'
    assert rename_tables(f"{text} #", {"a": "sig-a"}) == f"{text} #", "what is no expression stays"


def test_swapped_names_are_swapped_at_once() -> None:
    assert rename_tables("a.x - b.x", {"a": "b", "b": "a"}) == "b.x - a.x"
