"""The syntax tree of an expression; plain immutable values that compute nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

from optaic.expression.errors import ExpressionError, Reason, suggest
from optaic.expression.names import read_parts
from optaic.expression.signature import Signature


@dataclass(frozen=True)
class Number:
    """A literal."""

    value: float
    position: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Text:
    """A text in single quotes, which columns are compared with."""

    value: str
    position: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Column:
    """A column by name, or by `table.name`."""

    name: str
    position: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Negate:
    """Unary minus."""

    operand: Node
    position: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Binary:
    """An infix operation: one of + - * / ^ < <= > >= == !=."""

    symbol: str
    left: Node
    right: Node
    position: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Call:
    """A named operator with its values and its parameters, defaults filled in."""

    signature: Signature
    values: tuple[Node, ...]  # the group last, if there is one
    parameters: tuple[float, ...]
    position: int = field(default=0, compare=False)


Node: TypeAlias = Number | Text | Column | Negate | Binary | Call


def children(node: Node) -> tuple[Node, ...]:
    """Return direct sub-expressions, from left to right."""
    if isinstance(node, Negate):
        return (node.operand,)
    if isinstance(node, Binary):
        return (node.left, node.right)
    return node.values if isinstance(node, Call) else ()


@dataclass(frozen=True)
class Expression:
    """A parsed text. Equal when the trees are equal, whatever the spacing."""

    root: Node
    text: str = field(default="", compare=False)

    def walk(self) -> Iterator[Node]:
        """Yield every node, sub-expressions before what uses them."""
        pending: list[tuple[Node, bool]] = [(self.root, False)]
        while pending:
            node, is_expanded = pending.pop()
            if is_expanded:
                yield node
            else:
                pending.append((node, True))
                pending.extend((child, False) for child in reversed(children(node)))

    def warm_up(self) -> int | None:
        """Return how many earlier sessions a value may depend on; None if on all."""
        needed: dict[int, int | None] = {}
        for node in self.walk():
            below = [needed[id(child)] for child in children(node)]
            own = node.signature.warm_up(node.parameters) if isinstance(node, Call) else 0
            known = [each for each in (*below, own) if each is not None]
            is_bounded = len(known) == len(below) + 1
            needed[id(node)] = max(known[:-1], default=0) + known[-1] if is_bounded else None
        return needed[id(self.root)]

    @property
    def columns(self) -> Mapping[str, int]:
        """Return the columns that the expression reads, each with the position of its first use, in order of use."""
        found: dict[str, int] = {}
        for node in self.walk():
            if isinstance(node, Column):
                found.setdefault(node.name, node.position)
        return found

    def check_columns(
        self,
        available: Collection[str],
        ambiguous: Mapping[str, Collection[str]] | None = None,
        namesakes: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """Refuse columns that no input has, or that several have.

        Args:
            available: names that can be read.
            ambiguous: names that several tables have, with the qualified names that tell them apart.
            namesakes: names of tables that several inputs have, with the ids of these inputs.

        Raises:
            ExpressionError: at the first such column.
        """
        for name, position in self.columns.items():
            if ambiguous and name in ambiguous:
                choices = sorted(set(ambiguous[name]))
                if len(choices) == 1:
                    table = read_parts(choices[0])[0]
                    self.refuse_namesakes(name, table, (namesakes or {}).get(table, ()))
                message = f"several inputs have a column {name!r}; write {' or '.join(choices)}"
                raise ExpressionError(Reason.AMBIGUOUS_COLUMN, message, position, self.text)
            if name not in available:
                message = f"unknown column {name!r}; {suggest(name, available)}"
                raise ExpressionError(Reason.UNKNOWN_COLUMN, message, position, self.text)

    def refuse_namesakes(self, name: str, table: str, ids: Collection[str]) -> NoReturn:
        """Refuse a column of one of several inputs with the same name: no text can distinguish them.

        Raises:
            ExpressionError: always.
        """
        which = f" ({', '.join(sorted(ids))})" if ids else ""
        message = (
            f"several inputs are named {table!r}{which}, so column {name!r} is ambiguous; "
            "rename all but one of these instances, or depend on only one of them"
        )
        raise ExpressionError(Reason.AMBIGUOUS_COLUMN, message, self.columns[name], self.text)
