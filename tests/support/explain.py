"""The plan of a query, and how much it read."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles


class Explain(sa.Executable, sa.ClauseElement):
    """The statement that runs a query and returns its plan."""

    inherit_cache = False

    def __init__(self, query: sa.Select[Any]) -> None:
        self.query = query


@compiles(Explain)
def _explain(element: Explain, compiler: Any, **arguments: Any) -> str:
    return f"explain (analyze, format json) {compiler.process(element.query, **arguments)}"


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def rows_read(plan: dict[str, Any]) -> int:
    """Return how many rows a plan touched on its way, also those that it threw away."""
    return int(
        sum(
            node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
            for node in _nodes(plan)
        )
    )
