"""docs/expressions.md defines exactly the operators that exist, each with its arguments, warm-up and source."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from optaic.expression import MACROS, OPERATORS, Scope

_TEXT = (Path(__file__).parents[3] / "docs" / "expressions.md").read_text("utf-8")
_HEADS = {
    Scope.TIME_SERIES: "## Time series",
    Scope.CROSS_SECTION: "## Cross-section",
    Scope.ELEMENTWISE: "## Row by row",
}


def _rows(scope: Scope) -> Iterator[dict[str, str]]:
    """The rows of the table in the section of a scope, by column."""
    section = _TEXT[_TEXT.index(_HEADS[scope]) :]
    section = section[: section.index("\n## ", 1)]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    for row in cells[2:]:
        yield dict(zip(cells[0], row, strict=True))


@pytest.mark.parametrize("scope", list(Scope))
def test_the_page_defines_every_operator_and_no_other(scope: Scope) -> None:
    documented = {row["operator"].strip("`"): row for row in _rows(scope)}
    signatures = [signature for signature in OPERATORS.values() if signature.scope is scope]
    assert sorted(documented) == sorted(signature.full_usage for signature in signatures)
    for signature in signatures:
        row = documented[signature.full_usage]
        assert len(row["is"]) > 5, signature.name
        assert row["as in"], signature.name
        if scope is not Scope.TIME_SERIES:
            assert signature.warm_up(()) == 0
            continue
        n = next((each for each in signature.parameters if each.name == "n"), None)
        assert row["n"] == (f"from {n.minimum:g}" if n else ""), signature.name
        needed = {None: "all", 50: "n", 49: "n - 1"}[signature.warm_up((50,) * len(signature.parameters))]
        assert row["warm-up"] == needed, signature.name


def test_the_page_shows_every_built_in_macro() -> None:
    for macro in MACROS.values():
        assert f"| `{macro.usage}` | `{macro.text}` |" in _TEXT


def test_the_examples_of_the_page_are_expressions_that_name_existing_operators() -> None:
    called = set(re.findall(r"`[^`\n]*?([A-Z][A-Z_]+)\(", _TEXT))
    own = {"ACME_GAP", "MEAM", "SPREAD", "NAME", "OP"}
    assert called - set(OPERATORS) - set(MACROS) <= own
