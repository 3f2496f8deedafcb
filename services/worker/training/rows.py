"""Build the rows of a training: the features of each date and entity, and the target where it is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from optaic.expression import Macro
from optaic.plugins import InputTable, Operator, SchemaMismatch
from optaic.plugins.words import describe_type
from optaic.rules.columns import KEYS
from worker.builtin import features as building
from worker.builtin.parameters import Config

# Columns beside those of the features, whose names never begin so.
TARGET, LABEL_END, PREDICTION, CONFIDENCE = "_target", "_label_end", "_prediction", "_confidence"


@dataclass(frozen=True)
class Rows:
    """A table `date, entity, features..., _target, _label_end`, and the names of its features."""

    table: pl.DataFrame
    features: list[str]
    unmatched_targets: int  # known targets of a date and entity that no feature has


def build_rows(
    config: Config,
    features: Sequence[InputTable],
    target: Sequence[InputTable],
    macros: Mapping[str, Macro],
    operators: Mapping[str, Operator],
) -> Rows:
    """Build the rows from the inputs of the features and of the target.

    Raises:
        InvalidConfig: a feature or the target is malformed.
        InvalidExpression: an expression does not parse, or names what no table has.
        SchemaMismatch: features and target are dated or named in different types.
    """
    described = building.read_features(config)
    built = building.build_features(described, features, macros, operators)
    labels = building.build_labels(config, target, macros, operators).rename(
        {building.TARGET: TARGET, building.LABEL_END: LABEL_END}
    )
    for key in KEYS:
        if built.schema[key] != labels.schema[key]:
            raise SchemaMismatch(
                f"{key!r} is {describe_type(built.schema[key])} in the features but {describe_type(labels.schema[key])} in the "
                "target; give it the same type in both"
            )
    known = keep_labelled(labels)
    return Rows(
        built.join(labels, on=KEYS, how="left", maintain_order="left"),
        [feature.name for feature in described],
        known.join(built, on=KEYS, how="anti").height,
    )


def keep_labelled(table: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that have a finite target."""
    return table.filter(pl.col(TARGET).cast(pl.Float64).is_finite().fill_null(value=False))
