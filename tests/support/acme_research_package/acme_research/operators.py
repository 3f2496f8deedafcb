"""The operators that this package adds to the expression language; only workers import it."""

from collections.abc import Sequence

import polars as pl

from optaic.expression import Parameter, Scope
from optaic.plugins import Operator


class Gap(Operator):
    """How far a value lies below the largest of the last n sessions."""

    name = "ACME_GAP"
    scope = Scope.TIME_SERIES
    parameters = (Parameter("n", minimum=1, maximum=1000, default=2),)
    summary = "the largest of the last n sessions less x"

    def compile(self, values: Sequence[pl.Expr], parameters: Sequence[float]) -> pl.Expr:
        """Return one entity's gaps, in date order."""
        sessions = int(parameters[0])
        return values[0].rolling_max(sessions, min_samples=sessions) - values[0]
