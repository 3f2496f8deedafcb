"""Read the queues of all tenants in turns, so that the many rows of one tenant delay no row of another.

Each tenant's first row comes before any tenant's second one. The cost grows with the number of tenants that have rows and
with the size of the batch, not with the length of the queue, if the table has an index of the tenant and the order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

# The parameters of statements in turns. To build such a statement takes longer than to execute it, so each is built once.
NOW = sa.bindparam("now", type_=sa.DateTime(timezone=True))
UNTIL = sa.bindparam("until", type_=sa.DateTime(timezone=True))  # when a claim expires
MOST = sa.bindparam("most", type_=sa.Integer)  # rows
_REPLICAS = 4  # this many may claim at once and each find a whole batch
# Gets the columns of the table, or of an alias of it.
Condition = Callable[[Any], sa.ColumnElement[bool]]


def in_turns(
    table: sa.Table,
    wanted: Condition,
    *,
    key: Sequence[str],
    order: str,
    limit: int | sa.BindParameter[int],
    queued: Condition | None = None,
    lock: bool = False,
) -> sa.Select[Any]:
    """Select the keys of at most `limit` wanted rows, in turns of the tenants, each tenant's by `order`.

    `key` names the columns of the key, the tenant's among them. `queued` is what the index of the tenants and the order is
    restricted to. With `lock` the rows are locked, and those that another transaction has locked are passed over.
    """
    candidates = limit * _REPLICAS if lock else limit
    tenants = _tenants(table, queued)
    waiting = table.alias("waiting")
    foremost = (
        sa.select(*(waiting.c[name] for name in key), waiting.c[order].label("place"))
        .where(waiting.c.tenant_id == tenants.c.tenant_id, wanted(waiting.c))
        .order_by(waiting.c[order])
        .limit(candidates)
        .lateral("foremost")
    )
    turn = (
        sa.func.row_number().over(partition_by=foremost.c.tenant_id, order_by=foremost.c.place).label("turn")
    )
    ranked = (
        sa.select(foremost, turn)
        .select_from(tenants.join(foremost, sa.true()))
        .order_by(turn, foremost.c.place)
        .limit(candidates)
        .subquery("ranked")
    )
    statement = (
        sa.select(*(table.c[name] for name in key))
        .join(ranked, sa.and_(*(table.c[name] == ranked.c[name] for name in key)))
        # Once more, because a row may have changed before it was locked.
        .where(wanted(table.c))
        .order_by(ranked.c.turn, ranked.c.place, ranked.c.tenant_id)
        .limit(limit)
    )
    return statement.with_for_update(skip_locked=True, of=table) if lock else statement


def _tenants(table: sa.Table, queued: Condition | None) -> sa.CTE:
    """Return the tenants that have rows, each found by one step in the index."""

    def lowest(of: sa.FromClause, *conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
        if queued is not None:
            conditions = (*conditions, queued(of.c))
        return sa.select(sa.func.min(of.c.tenant_id).label("tenant_id")).where(*conditions)

    following = table.alias("following")
    tenants = lowest(table.alias("first")).cte("tenants", recursive=True)
    after = lowest(following, following.c.tenant_id > tenants.c.tenant_id).scalar_subquery()
    return tenants.union_all(sa.select(after).where(tenants.c.tenant_id.is_not(None)))
