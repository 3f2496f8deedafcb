"""The built-in operators' signatures; docs/expressions.md defines each, `optaic.expression.kernels` computes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optaic.expression.signature import Parameter, Scope, Signature

_LONGEST = 10_000  # sessions, about 40 years of trading days
_BACK = Parameter("n", minimum=1, maximum=_LONGEST)
_BACK_OR_NOW = Parameter("n", minimum=0, maximum=_LONGEST)  # never negative: that would look ahead
_WINDOW = Parameter("n", minimum=1, maximum=_LONGEST)
_SPREAD_WINDOW = Parameter("n", minimum=2, maximum=_LONGEST)  # one value has no spread
_SKEW_WINDOW = Parameter("n", minimum=3, maximum=_LONGEST)
_KURT_WINDOW = Parameter("n", minimum=4, maximum=_LONGEST)
_FEWEST = Parameter("min_periods", minimum=1, maximum=_LONGEST, default_of="n")
_FEWEST_COUNTED = Parameter("min_periods", minimum=0, maximum=_LONGEST, default=0.0)
_TAIL = Parameter("p", minimum=0.0, maximum=0.5, is_integer=False, default=0.05)
_SHARE = Parameter("q", minimum=0.0, maximum=1.0, is_integer=False)
_HUMP = Parameter("hump", minimum=1e-300, maximum=1e300, is_integer=False, default=0.01)

_TIME = Scope.TIME_SERIES
_CROSS = Scope.CROSS_SECTION
_EACH = Scope.ELEMENTWISE


def _lag(parameters: Sequence[float]) -> int | None:
    return int(parameters[0])


def _window(parameters: Sequence[float]) -> int | None:
    return int(parameters[0]) - 1


def _lagged(name: str, n: Parameter, summary: str) -> Signature:
    return Signature(name, _TIME, 1, (n,), summary, own_warm_up=_lag)


def _rolling(name: str, n: Parameter, summary: str, *, values: int = 1) -> Signature:
    return Signature(name, _TIME, values, (n, _FEWEST), summary, own_warm_up=_window)


def _each(name: str, summary: str, *names: str) -> Signature:
    return Signature(name, _EACH, len(names) or 1, (), summary, value_names=names)


def _cross(name: str, summary: str, *parameters: Parameter) -> Signature:
    return Signature(name, _CROSS, 1, parameters, summary, has_group=True)


OPERATORS: Mapping[str, Signature] = {
    signature.name: signature
    for signature in (
        _lagged("REF", _BACK_OR_NOW, "the value n sessions back"),
        _lagged("DELTA", _BACK, "x - REF(x, n)"),
        _lagged("PCT", _BACK, "x / REF(x, n) - 1"),
        _rolling("MEAN", _WINDOW, "mean of the last n sessions"),
        _rolling("STD", _SPREAD_WINDOW, "standard deviation (ddof 1) of the last n sessions"),
        _rolling("MIN", _WINDOW, "smallest of the last n sessions"),
        _rolling("MAX", _WINDOW, "largest of the last n sessions"),
        _rolling("SUM", _WINDOW, "sum of the last n sessions"),
        Signature("EMA", _TIME, 1, (_WINDOW, _FEWEST), "exponential moving average, alpha = 2 / (n + 1)"),
        _rolling("CORR", _SPREAD_WINDOW, "Pearson correlation over the last n sessions", values=2),
        _cross("RANK", "rank among the entities as a share, (0, 1]; ties share the mean"),
        _cross("ZSCORE", "(x - mean) / standard deviation (ddof 1)"),
        _cross("DEMEAN", "x - mean"),
        _cross("WINSORIZE", "clipped to the p and 1 - p quantiles", _TAIL),
        _cross("SCALE", "x / sum of |x|"),
        _each("LOG", "natural logarithm"),
        _each("ABS", "absolute value"),
        _each("SIGN", "-1, 0 or 1"),
        _lagged("FFILL", _BACK, "the newest value of this session and the n sessions before it"),
        _rolling("MEDIAN", _WINDOW, "median of the last n sessions"),
        Signature(
            "QUANTILE",
            _TIME,
            1,
            (_WINDOW, _SHARE, _FEWEST),
            "q quantile of the last n sessions (linear interpolation)",
            own_warm_up=_window,
        ),
        _rolling("SKEW", _SKEW_WINDOW, "sample skewness of the last n sessions"),
        _rolling("KURT", _KURT_WINDOW, "sample excess kurtosis of the last n sessions"),
        _rolling("COV", _SPREAD_WINDOW, "covariance (ddof 1) over the last n sessions", values=2),
        _rolling(
            "BETA", _SPREAD_WINDOW, "slope of the regression of x on y over the last n sessions", values=2
        ),
        _rolling("RESID", _SPREAD_WINDOW, "x less the line of the regression of x on y, today", values=2),
        _rolling("TS_RANK", _WINDOW, "rank of x among its last n sessions as a share, (0, 1]"),
        _rolling("ARGMAX", _WINDOW, "place of the largest of the last n sessions: 1 the oldest, n today"),
        _rolling("ARGMIN", _WINDOW, "place of the smallest of the last n sessions: 1 the oldest, n today"),
        Signature(
            "COUNT",
            _TIME,
            1,
            (_WINDOW, _FEWEST_COUNTED),
            "number of the last n sessions that have a value",
            own_warm_up=_window,
        ),
        _rolling(
            "DECAY_LINEAR", _WINDOW, "mean of the last n sessions with the weights 1 (oldest) to n (today)"
        ),
        Signature("HUMP", _TIME, 1, (_HUMP,), "x that moves by at most hump, and not for less"),
        _each("FILL", "x, or value where x has none", "x", "value"),
        _each("IF", "x where the condition is not 0, else y", "condition", "x", "y"),
        _each("EXP", "e to the power of x"),
        _each("SQRT", "square root"),
        _each("POW", "x to the power of y", "x", "y"),
        _each("CLIP", "x, at least lower and at most upper", "x", "lower", "upper"),
        _each("GREATEST", "larger of x and y", "x", "y"),
        _each("LEAST", "smaller of x and y", "x", "y"),
    )
}
# Nobody could ever give these names to an operator or a macro of their own. Whoever gave one of the other names to
# theirs before it was an operator here keeps what it means.
FIRST_OPERATORS = frozenset(list(OPERATORS)[:18])
# What qlib, WorldQuant's language, pandas and SQL call an operator of this one.
NAMES_ELSEWHERE: Mapping[str, str] = {
    elsewhere: name
    for name, names in {
        "REF": "DELAY LAG SHIFT TS_DELAY",
        "DELTA": "DIFF TS_DELTA",
        "PCT": "PCT_CHANGE",
        "MEAN": "AVG SMA TS_MEAN",
        "STD": "STDDEV TS_STD TS_STDDEV TS_STD_DEV",
        "MIN": "TS_MIN",
        "MAX": "TS_MAX",
        "SUM": "TS_SUM",
        "EMA": "EWM EWMA",
        "CORR": "CORRELATION TS_CORR",
        "COV": "COVARIANCE TS_COVARIANCE",
        "ARGMAX": "IDXMAX TS_ARGMAX TS_ARG_MAX",
        "ARGMIN": "IDXMIN TS_ARGMIN TS_ARG_MIN",
        "MEDIAN": "MED TS_MEDIAN",
        "QUANTILE": "PERCENTILE TS_QUANTILE",
        "DECAY_LINEAR": "TS_DECAY_LINEAR WMA",
        "BETA": "SLOPE TS_REGRESSION",
        "RESID": "RESI",
        "DEMEAN": "GROUP_NEUTRALIZE INDNEUTRALIZE NEUTRALIZE",
        "RANK": "GROUP_RANK",
        "ZSCORE": "GROUP_ZSCORE",
        "GREATEST": "GREATER",
        "LEAST": "LESS",
        "IF": "IF_ELSE IFELSE WHERE",
        "POW": "POWER",
        "LOG": "LN",
        "FILL": "COALESCE FILLNA",
        "FFILL": "TS_BACKFILL",
    }.items()
    for elsewhere in names.split()
}
