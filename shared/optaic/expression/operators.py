"""The built-in operators' signatures; docs/expressions.md defines each, the compiler computes them."""

from __future__ import annotations

from collections.abc import Mapping

from optaic.expression.signature import Parameter, Scope, Signature

_LONGEST = 10_000  # sessions, about 40 years of trading days
_BACK = Parameter("n", minimum=1, maximum=_LONGEST)
_BACK_OR_NOW = Parameter("n", minimum=0, maximum=_LONGEST)  # never negative: that would look ahead
_WINDOW = Parameter("n", minimum=1, maximum=_LONGEST)
_SPREAD_WINDOW = Parameter("n", minimum=2, maximum=_LONGEST)  # one value has no spread
_TAIL = Parameter("p", minimum=0.0, maximum=0.5, is_integer=False, default=0.05)

_TIME = Scope.TIME_SERIES
_CROSS = Scope.CROSS_SECTION
_EACH = Scope.ELEMENTWISE

OPERATORS: Mapping[str, Signature] = {
    signature.name: signature
    for signature in (
        Signature("REF", _TIME, 1, (_BACK_OR_NOW,), "the value n sessions back"),
        Signature("DELTA", _TIME, 1, (_BACK,), "x - REF(x, n)"),
        Signature("PCT", _TIME, 1, (_BACK,), "x / REF(x, n) - 1"),
        Signature("MEAN", _TIME, 1, (_WINDOW,), "mean of the last n sessions"),
        Signature("STD", _TIME, 1, (_SPREAD_WINDOW,), "standard deviation (ddof 1) of the last n sessions"),
        Signature("MIN", _TIME, 1, (_WINDOW,), "smallest of the last n sessions"),
        Signature("MAX", _TIME, 1, (_WINDOW,), "largest of the last n sessions"),
        Signature("SUM", _TIME, 1, (_WINDOW,), "sum of the last n sessions"),
        Signature("EMA", _TIME, 1, (_WINDOW,), "exponential moving average, alpha = 2 / (n + 1)"),
        Signature("CORR", _TIME, 2, (_SPREAD_WINDOW,), "Pearson correlation over the last n sessions"),
        Signature("RANK", _CROSS, 1, (), "rank among the entities as a share, (0, 1]; ties share the mean"),
        Signature("ZSCORE", _CROSS, 1, (), "(x - mean) / standard deviation (ddof 1)"),
        Signature("DEMEAN", _CROSS, 1, (), "x - mean"),
        Signature("WINSORIZE", _CROSS, 1, (_TAIL,), "clipped to the p and 1 - p quantiles"),
        Signature("SCALE", _CROSS, 1, (), "x / sum of |x|"),
        Signature("LOG", _EACH, 1, (), "natural logarithm"),
        Signature("ABS", _EACH, 1, (), "absolute value"),
        Signature("SIGN", _EACH, 1, (), "-1, 0 or 1"),
    )
}
