"""Build the features and the target of a model from its configuration and its inputs; nothing is trained here.

Expressions are evaluated over all history and never look ahead. What a transform has to learn (a mean, a quantile)
belongs to the model: it is learnt from the rows that the model learns from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from optaic.expression import OPERATORS, ExpressionError, Macro, parse
from optaic.expression.compiler import IMPLEMENTATIONS, evaluate
from optaic.expression.joining import join_inputs
from optaic.plugins import InputTable, InvalidConfig, InvalidExpression, Operator
from optaic.rules.columns import DATE, KEYS
from worker.builtin.parameters import Config, read_choice, read_number, read_section, read_text, read_whole

TARGET, LABEL_END = "target", "label_end"  # columns of the labels
_NONE: Mapping[str, Operator] = {}
TRANSFORMS = ("standardize", "winsorize", "fill_median")


@dataclass(frozen=True)
class Transform:
    """A step that a feature goes through before the model sees it."""

    name: str
    share: float = 0.01  # of a winsorization: what is cut on either side


@dataclass(frozen=True)
class Feature:
    """One column that a model learns from."""

    name: str
    expression: str
    transforms: tuple[Transform, ...] = ()


def read_features(config: Config) -> tuple[Feature, ...]:
    """Read `features` from a configuration: a list of `{name, expression, transforms}`, each name once."""
    given = config.get("features")
    if not isinstance(given, list | tuple) or not given:
        raise InvalidConfig("features: must be a list with at least one item")
    features = tuple(_read_feature(item, f"features[{position}]") for position, item in enumerate(given))
    names = [feature.name for feature in features]
    if len(set(names)) < len(names) or set(names) & set(KEYS):
        raise InvalidConfig("features: each name must occur once, and must not be date or entity")
    return features


def _read_feature(given: object, path: str) -> Feature:
    if not isinstance(given, Mapping):
        raise InvalidConfig(f"{path}: must be an object")
    steps = given.get("transforms") or ()
    if not isinstance(steps, list | tuple) or not all(isinstance(step, Mapping) for step in steps):
        raise InvalidConfig(f"{path}.transforms: must be a list of objects")
    transforms = tuple(
        Transform(
            read_choice(step, "name", TRANSFORMS, ""),
            read_number(step, "share", 0.01, minimum=0.0, maximum=0.49),
        )
        for step in steps
    )
    return Feature(read_text(given, "name"), read_text(given, "expression"), transforms)


def build_features(
    features: Sequence[Feature],
    tables: Sequence[InputTable],
    macros: Mapping[str, Macro],
    operators: Mapping[str, Operator] = _NONE,
) -> pl.DataFrame:
    """Build a sorted table `date, entity` with a column for each feature; null where a feature has no value.

    `operators` are those of other packages, by the names that the expressions use.

    Raises:
        InvalidExpression: an expression does not parse, or names what no table has.
    """
    built: pl.DataFrame | None = None
    for feature in features:
        column = _evaluate(feature.expression, tables, macros, operators, feature.name)
        built = column if built is None else built.join(column, on=KEYS, how="full", coalesce=True)
    assert built is not None
    return built.sort(KEYS)


def read_horizon(config: Config) -> int:
    """Read `target.horizon`: how many sessions later the target of a row is known."""
    return read_whole(read_section(config, "target"), "horizon", 1, minimum=1, maximum=10_000)


def build_target(
    config: Config,
    tables: Sequence[InputTable],
    macros: Mapping[str, Macro],
    operators: Mapping[str, Operator] = _NONE,
) -> pl.DataFrame:
    """Build a table `date, entity, target`: the value of `target.expression` after `target.horizon` more sessions."""
    return build_labels(config, tables, macros, operators).drop(LABEL_END)


def build_labels(
    config: Config,
    tables: Sequence[InputTable],
    macros: Mapping[str, Macro],
    operators: Mapping[str, Operator] = _NONE,
) -> pl.DataFrame:
    """Build the same with `label_end`, the session on which the target became known."""
    text = read_text(read_section(config, "target"), "expression")
    later = _evaluate(text, tables, macros, operators, TARGET)
    sessions = later.select(pl.col(DATE).unique().sort())
    ahead = sessions.select(DATE, pl.col(DATE).shift(-read_horizon(config)).alias(LABEL_END))
    known = ahead.join(later.rename({DATE: LABEL_END}), on=LABEL_END)
    return known.select(*KEYS, TARGET, LABEL_END).sort(KEYS)


def _evaluate(
    text: str,
    tables: Sequence[InputTable],
    macros: Mapping[str, Macro],
    operators: Mapping[str, Operator],
    output: str,
) -> pl.DataFrame:
    try:
        signatures = {name: operator.signature() for name, operator in operators.items()}
        expression = parse(text, {**OPERATORS, **signatures}, macros)
        compiled = {name: operator.compile for name, operator in operators.items()}
        joined = join_inputs(expression, tables)
        return evaluate(expression, joined, output=output, operators={**IMPLEMENTATIONS, **compiled})
    except ExpressionError as error:
        raise InvalidExpression(f"{output}: {error}") from error
