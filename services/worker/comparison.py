"""Compare a refresh with the previous version: count changes, and refuse too many deletions; reads no storage."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from optaic.plugins import DeletionRefused

_FEWEST = 20  # keys: of fewer, a few that go say nothing


def count_changes(base: pl.DataFrame, table: pl.DataFrame, keys: Sequence[str]) -> dict[str, int]:
    """Return how many rows are inserted, updated and deleted, where a store cannot: the version before is another's."""
    deleted = count_deleted(base, table, keys)
    if not set(keys) <= set(base.columns) & set(table.columns):
        return {"rows_inserted": table.height, "rows_updated": 0, "rows_deleted": deleted}
    base, present = _make_alike(base, table)
    kept = present.join(base.select(keys), on=list(keys), how="semi", nulls_equal=True)
    unchanged = 0
    if set(present.columns) == set(base.columns):
        unchanged = kept.join(base, on=base.columns, how="semi", nulls_equal=True).height
    return {
        "rows_inserted": present.height - kept.height,
        "rows_updated": kept.height - unchanged,
        "rows_deleted": deleted,
    }


def count_deleted(base: pl.DataFrame, table: pl.DataFrame, keys: Sequence[str]) -> int:
    """Return how many keys of the version before the new content lacks.

    Where one of the two has no such columns, nothing identifies a row: then it is how many rows fewer there are.
    """
    if not keys or not set(keys) <= set(base.columns) & set(table.columns):
        return max(base.height - table.height, 0)
    # A key is the same in whatever width its number comes; one that cannot be cast is another one.
    base, present = _make_alike(base.select(keys), table.select(keys))
    return base.unique().join(present, on=list(keys), how="anti", nulls_equal=True).height


def _make_alike(base: pl.DataFrame, table: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return both with the same types where they have the same columns: the base's, or floats where that would cut a fraction."""
    before, now = [], []
    for name, kind in base.schema.items():
        if name not in table.columns:
            continue
        if kind.is_integer() and table.schema[name].is_float():
            before.append(_cast(base[name], table.schema[name]))
        else:
            now.append(_cast(table[name], kind))
    return base.with_columns(before), table.with_columns(now)


def _cast(column: pl.Series, kind: pl.DataType) -> pl.Series:
    """Return the values as another type; none where it takes none of them."""
    try:
        return column.cast(kind, strict=False)
    except pl.exceptions.InvalidOperationError:
        return pl.Series(column.name, [None], kind).new_from_index(0, column.len())


def check_deletions(
    base: pl.DataFrame, table: pl.DataFrame, keys: Sequence[str], max_deleted_share: float
) -> None:
    """Refuse to take away too many of the keys.

    Raises:
        DeletionRefused: saying how many of how many, and what to do.
    """
    known = base.select(keys).n_unique() if keys and set(keys) <= set(base.columns) else base.height
    if known < _FEWEST:
        return
    deleted = count_deleted(base, table, keys)
    if deleted > max_deleted_share * known:
        raise DeletionRefused(
            f"the refresh would delete {deleted} of {known} keys ({', '.join(keys)}), {deleted / known:.1%}, and "
            f"max_deleted_share allows {max_deleted_share:.1%}; nothing was written. If these keys no longer exist "
            "at the source, submit the run with allow_deletion and a reason (optaic run submit NAME --allow-deletion --reason TEXT)"
        )
