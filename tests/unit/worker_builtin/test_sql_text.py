"""Where a query ends: behind its last word, whatever comments and semicolons follow."""

import pytest

from optaic.plugins import InvalidQuery
from worker.builtin.sql_text import trim

QUERY = "select day from px where name = 'a;b -- c'"


@pytest.mark.parametrize(
    "tail",
    [
        "",
        ";",
        " ; ;\n",
        "-- end",
        " -- end; really",
        "; -- done",
        ";\n/* a\n;b */\n-- c\n",
        " /* ' */",
        ";--'",
    ],
)
@pytest.mark.parametrize("head", ["", "-- head\n", "/* head; */ ", " ;; "])
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "oracle", "mssql", "mysql"])
def test_comments_and_semicolons_around_a_statement_are_removed(dialect: str, head: str, tail: str) -> None:
    if dialect == "mysql":
        tail = tail.replace("--'", "-- '")
    assert trim(head + QUERY + tail, dialect) == QUERY


@pytest.mark.parametrize(
    ("dialect", "query"),
    [
        ("sqlite", 'select ";--" from [a;--b]'),
        ("mysql", r"select 'it\'s; -- no comment' from `a;b`"),
        ("mysql", "select 5--3"),
        ("mysql", "select /*! 1; */ 2"),
        ("postgresql", r"select E'it\'s; -- no comment'"),
        ("postgresql", r"select 'a\'"),
        ("postgresql", "select $$it's; -- $$, $x$ ; $$ -- $x$"),
        ("postgresql", "select a[1] # 2, '{}'::json #> '{a}'"),
        ("postgresql", "select 1 /* a /* ; */ b */ + 1"),
        ("oracle", "select /*+ index(a) */ 'a;''b;' from a"),
    ],
)
def test_text_literals_stay_unchanged(dialect: str, query: str) -> None:
    assert trim(f"{query};", dialect) == query
    assert trim(f"{query} -- end", dialect) == query


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "mssql", "mysql"])
def test_text_after_a_carriage_return_is_kept_because_a_database_may_read_it(dialect: str) -> None:
    query = "select day -- the day\rfrom px -- prices\rwhere day > 3"  # PostgreSQL reads on behind it
    assert trim(f"{query} -- end\r\n", dialect) == query


@pytest.mark.parametrize(
    ("query", "place"), [("select 1; select 2", 11), ("select 1;-- a\n select 2;", 16), ("select 1; x", 11)]
)
def test_a_second_statement_is_refused_where_it_begins(query: str, place: int) -> None:
    with pytest.raises(InvalidQuery, match=f"begins at character {place};"):
        trim(query, "sqlite")


@pytest.mark.parametrize("query", ["", " \n", "-- nothing", ";", "/* select 1 */ ;"])
def test_a_query_of_nothing_is_refused(query: str) -> None:
    with pytest.raises(InvalidQuery, match="only comments"):
        trim(query, "sqlite")


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_a_comment_without_an_end_is_refused(dialect: str) -> None:
    with pytest.raises(InvalidQuery, match="begins at character 10 never ends"):
        trim("select 1 /* and so on", dialect)
    if dialect == "postgresql":
        with pytest.raises(InvalidQuery, match="begins at character 10 never ends"):
            trim("select 1 /* a /* b */ and so on", dialect)
