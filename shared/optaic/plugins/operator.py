"""The abstract base class of an operator of the expression language; the compiler calls it, it calls nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from optaic.expression.signature import Parameter, Scope, Signature

if TYPE_CHECKING:
    import polars as pl


class Operator(ABC):
    """An operator of the expression language.

    A time-series operator sees one entity's values in date order, a cross-sectional one the values of one date; the
    compiler sets that window. Absent values are null; a result that is not finite becomes null afterwards.
    """

    name: ClassVar[str]  # upper case
    scope: ClassVar[Scope]
    values: ClassVar[int] = 1  # how many sub-expressions come first
    parameters: ClassVar[tuple[Parameter, ...]] = ()  # numbers that follow them
    summary: ClassVar[str] = ""

    @classmethod
    def signature(cls) -> Signature:
        """Return the signature, from which the parser checks calls."""
        return Signature(
            cls.name, cls.scope, cls.values, cls.parameters, cls.summary, own_warm_up=cls.warm_up
        )

    @classmethod
    def warm_up(cls, parameters: Sequence[float]) -> int | None:
        """Return how many earlier sessions a result may depend on; None if on all, as with a time series by default."""
        del parameters
        return None if cls.scope is Scope.TIME_SERIES else 0

    @abstractmethod
    def compile(self, values: Sequence[pl.Expr], parameters: Sequence[float]) -> pl.Expr:
        """Return one polars expression of the length of its inputs (or a scalar), without `over`.

        Args:
            values: the sub-expressions.
            parameters: the numbers that follow them; those that are declared whole are `int`.
        """
