"""CSV files as texts: every way to write them, each row with the place at which a person finds it."""

import codecs
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optaic.plugins import InvalidConfig, SchemaMismatch, UnparsableData
from worker.builtin.csv_text import CsvFormat, CsvText, read_csv_text


def read(content: str | bytes, wanted: dict[str, str] | None = None, **config: object) -> CsvText:
    raw = content.encode() if isinstance(content, str) else content
    return read_csv_text(raw, CsvFormat.from_config(config), wanted or {}, "a.csv")


@pytest.mark.parametrize(
    ("content", "config"),
    [
        ("a,b\n1,x y\n,2\n", {}),
        ("a,b\r\n1,x y\r\n,2\r\n", {}),
        ("a,b\r1,x y\r,2", {}),
        ("a;b\n1;x y\n;2\n", {"delimiter": ";"}),
        ("a;b\n1;x y\n;2\n", {"separator": ";"}),
        ("a\tb\n1\tx y\n\t2\n", {"delimiter": "\t"}),
        ("a,b\n'1','x y'\n'',2\n", {"quote": "'"}),
        ('"a","b"\n"1","x y"\n"","2"\n', {}),
        ("\n  \na,b\n\n1,x y\n   \n,2\n\n", {}),
        (codecs.BOM_UTF8 + b"a,b\n1,x y\n,2\n", {}),
        ("a,b\n1,x y\n,2\n".encode("utf-16"), {"encoding": "utf-16"}),
    ],
)
def test_every_way_to_write_a_file_gives_the_same(content: str | bytes, config: dict[str, Any]) -> None:
    assert read(content, **config).columns.to_dict(as_series=False) == {"a": ["1", None], "b": ["x y", "2"]}


def test_characters_are_those_of_the_encoding() -> None:
    content = "name,px\nSoci\u00e9t\u00e9,1\n".encode("latin-1")
    assert read(content, encoding="latin-1").columns["name"].to_list() == ["Soci\u00e9t\u00e9"]
    with pytest.raises(UnparsableData, match=r"line 2 is not valid utf-8; set `encoding`"):
        read(content)


def test_quotes_hold_delimiters_quotes_and_line_ends() -> None:
    assert read('a,b\n"1,5","x ""y""\nz"\n').columns.rows() == [("1,5", 'x "y"\nz')]
    assert read('a,b\n"x,y"\n', quote="").columns.rows() == [('"x', 'y"')]


def test_a_value_may_be_as_long_as_the_file() -> None:
    text = "x" * 200_000
    assert read(f"a,b\n{text},2\n").columns.rows() == [(text, "2")]


def test_rows_are_counted_as_a_person_sees_them() -> None:
    found = read('\na,b\n1,2\n\n"x\ny",2\n3,4\n')
    assert found.columns.height == 3
    assert found.blank_lines == 1
    assert [found.locate(row) for row in range(3)] == ["row 3", "row 5", "row 6 (line 7 of the file)"]


def test_rows_of_a_long_file_are_counted_too() -> None:
    lines = ["a,b", *(f"{number},x" for number in range(120_000))]
    lines[70_001] = '7,"x\ny"'
    lines[110_001] = ""
    found = read("\n".join(lines))
    assert (found.columns.height, found.blank_lines) == (119_999, 1)
    assert found.locate(69_999) == "row 70001"
    assert found.locate(70_000) == "row 70002"
    assert found.locate(70_001) == "row 70003 (line 70004 of the file)"
    assert found.locate(110_000) == "row 110003 (line 110004 of the file)"
    assert found.columns["a"][110_000] == "110001"


def test_a_blank_line_may_be_a_row_without_values() -> None:
    found = read("a,b\n1,2\n\n3,4\n", skip_blank_lines=False)
    assert found.columns.rows() == [("1", "2"), (None, None), ("3", "4")]
    assert (found.blank_lines, found.locate(2)) == (0, "row 4")


def test_columns_are_chosen_by_the_names_of_the_file() -> None:
    found = read("day,px,px2,day\n1,2,3,4\n", {"close": "px", "again": "px"})
    assert found.columns.to_dict(as_series=False) == {"close": ["2"], "again": ["2"]}
    with pytest.raises(SchemaMismatch, match="columns of the same name, at the places 1, 3"):
        read("day,px,day\n1,2,3\n", {"date": "day"})
    with pytest.raises(SchemaMismatch, match="columns of the same name, at the places 1, 3"):
        read("day,px,day\n1,2,3\n")
    with pytest.raises(SchemaMismatch, match="no column vol"):
        read("day,px\n1,2\n", {"v": "vol"})


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a,b\n1,2\n3\n", "row 3 has 1 values but there are 2 columns"),
        ("a,b\n1,2\n\n3,4,5\n", "row 4 has 3 values"),
        ('a,b\n"x\ny",2\n3\n', r"row 3 \(line 4 of the file\) has 1 values"),
        ('a,b\n1,"open\n3,4\n', r"row 2 .*unexpected end of data"),
        ('a,b\n1,"x"y\n', "row 2"),
        ('a,b\n1,"open, 2\n3,4\n5,"6"\n', "row 2"),
        ("", "is empty"),
        ("\n \n", "is empty"),
    ],
)
def test_a_malformed_row_is_named(content: str, text: str) -> None:
    with pytest.raises(UnparsableData, match=text):
        read(content)


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"delimiter": ";;"}, "delimiter"),
        ({"delimiter": ""}, "delimiter"),
        ({"quote": '""'}, "quote"),
        ({"delimiter": "'", "quote": "'"}, "quote"),
        ({"separator": ",", "delimiter": ";"}, "separator"),
        ({"encoding": "martian"}, "encoding"),
        ({"encoding": "base64"}, "encoding"),
        ({"encoding": "a\0"}, "encoding"),
        ({"skip_blank_lines": "yes"}, "skip_blank_lines"),
    ],
)
def test_a_malformed_option_is_named(config: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidConfig, match=f"^{path}"):
        read("a,b\n1,2\n", **config)


cells = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"'), min_size=1, max_size=5
)


@given(rows=st.lists(st.tuples(cells, cells), max_size=8), breaks=st.sampled_from(["\n", "\r\n"]))
def test_quoted_values_come_back_as_they_were(rows: list[tuple[str, str]], breaks: str) -> None:
    content = breaks.join(["a,b", *(f'"{x}","{y}"' for x, y in rows)])
    assert read(content).columns.rows() == rows
