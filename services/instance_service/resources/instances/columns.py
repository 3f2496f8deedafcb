"""Determine which columns an instance's expressions may read, from the newest outputs of its upstreams."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from instance_service.resources.conversion import dataset_of, json_of
from instance_service.resources.instances.upstreams import Known
from optaic.expression import (
    Expression,
    ExpressionError,
    Reason,
    find_namesakes,
    read_parts,
    spell_column,
    spellings,
    suggest,
)
from optaic.instance.v1.instance_pb2 import Instance
from optaic.rules import roles
from optaic.rules.columns import KEYS, PREDICTED, WEIGHT

_READ_WHOLE = ("simple", "point_in_time")  # accessors that show the columns as they are stored
_ONE_FIELD = "field"


@dataclass(frozen=True)
class Columns:
    """Hold the columns that the expressions of one instance may read."""

    tables: frozenset[str] = frozenset()  # names of the upstreams whose columns are known
    owners: Mapping[str, Sequence[str]] = field(
        default_factory=dict
    )  # column as written -> the upstreams that have it, by qualified name
    is_complete: bool = False  # the columns of every upstream are known
    namesakes: Mapping[str, Sequence[str]] = field(
        default_factory=dict
    )  # by name, the upstreams that share it

    def check(self, expression: Expression) -> None:
        """Refuse an expression that reads a column of no upstream, or an ambiguous one.

        Raises:
            ExpressionError: A column is unknown or ambiguous; the error names the first.
        """
        if self.is_complete:
            shared = {name: owners for name, owners in self.owners.items() if len(owners) > 1}
            expression.check_columns(self.owners, shared, self.namesakes)
            return
        for name, position in expression.columns.items():
            table, *column = read_parts(name)
            if column and table in self.namesakes:
                expression.refuse_namesakes(name, table, self.namesakes[table])
            if column and table in self.tables and name not in self.owners:
                known = [each for each in self.owners if read_parts(each)[0] == table]
                message = f"unknown column {name!r}: {suggest(name, known)}"
                raise ExpressionError(Reason.UNKNOWN_COLUMN, message, position, expression.text)


def columns_of(instance: Instance, known: Known, stored: Mapping[str, Sequence[str]]) -> Columns:
    """Return the columns that an instance's expressions may read; its upstream references must be bound."""
    upstreams = {
        ref.resource_id: ref.name
        for ref in instance.upstream_refs
        if not (instance.HasField("experiment") and ref.role == roles.PRICES)  # no argument reads these
    }
    owners: dict[str, list[str]] = defaultdict(list)
    tables = set()
    for instance_id, name in upstreams.items():
        upstream = known.get(instance_id)  # None: refused elsewhere, because there is none
        readable = None if upstream is None else _readable(upstream, stored.get(instance_id))
        if readable is None:
            continue
        tables.add(name)
        for column in readable:
            qualified = spell_column(name, column)
            for written in (*spellings(column), qualified):
                owners[written].append(qualified)
    namesakes = find_namesakes((name, instance_id) for instance_id, name in upstreams.items())
    return Columns(
        frozenset(tables), owners, is_complete=len(tables) == len(upstreams) > 0, namesakes=namesakes
    )


def _readable(upstream: Instance, stored: Sequence[str] | None) -> list[str] | None:
    """Return the columns that a reader of an upstream sees, without keys; None where they are not known.

    Those of a dataset depend on its newest output and its accessor; all models predict the same columns, and all optimizers
    give weights.
    """
    given = {"model": PREDICTED, "portfolio_optimizer": (WEIGHT,)}
    if (columns := given.get(upstream.WhichOneof("spec") or "")) is not None:
        return list(columns)
    dataset = dataset_of(upstream)
    if dataset is None or stored is None:
        return None
    accessor = dataset.accessor.definition_name
    if accessor in _READ_WHOLE:
        return [column for column in stored if column not in KEYS]
    if accessor == _ONE_FIELD:
        config = json_of(dataset.accessor.config)
        return [str(config.get("output") or config.get("field", ""))]
    return None
