"""Well-known published alphas as macros, each against the same formula in plain pandas.

Formulas: Z. Kakushadze, "101 Formulaic Alphas" (2016), and the feature set Alpha158 of Microsoft's qlib.
"""

import datetime as dt
from collections.abc import Callable

import numpy as np
import pandas as pd
import polars as pl
import pytest

from optaic.expression import Macro, evaluate

Frames = dict[str, pd.DataFrame]
Alpha = tuple[str, Callable[[Frames], pd.DataFrame]]


def _frames() -> Frames:
    rng = np.random.default_rng(101)
    shape, names = (80, 7), list("abcdefg")
    index = pd.date_range("2021-01-01", periods=shape[0])
    close = 50 * np.exp(rng.normal(0, 0.03, shape).cumsum(axis=0))
    open_ = close * np.exp(rng.normal(0, 0.01, shape))
    high = np.maximum(open_, close) * (1 + np.abs(rng.normal(0, 0.01, shape)))
    low = np.minimum(open_, close) * (1 - np.abs(rng.normal(0, 0.01, shape)))
    volume = np.exp(rng.normal(12, 0.5, shape))
    values = {"open": open_, "high": high, "low": low, "close": close, "volume": volume}
    frames = {name: pd.DataFrame(value, index=index, columns=names) for name, value in values.items()}
    frames["vwap"] = (frames["high"] + frames["low"] + frames["close"]) / 3
    frames["returns"] = frames["close"] / frames["close"].shift(1) - 1
    return frames


_SECTORS = dict(zip("abcdefg", ["tech", "tech", "bank", "bank", "bank", "oil", "oil"], strict=True))


def _rank(x: pd.DataFrame) -> pd.DataFrame:
    return x.rank(axis=1, pct=True)


def _ts_rank(x: pd.DataFrame, n: int) -> pd.DataFrame:
    return x.rolling(n).rank(pct=True)


def _argmax(x: pd.DataFrame, n: int) -> pd.DataFrame:
    return x.rolling(n).apply(np.argmax, raw=True) + 1


def _decay(x: pd.DataFrame, n: int) -> pd.DataFrame:
    weights = np.arange(1, n + 1) / (n * (n + 1) / 2)
    return x.rolling(n).apply(lambda window: window @ weights, raw=True)


def _corr(x: pd.DataFrame, y: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return correlations; pandas gives an infinite one where a series is constant."""
    found = pd.DataFrame({name: x[name].rolling(n).corr(y[name]) for name in x})
    return found.where(np.isfinite(found))


def _cov(x: pd.DataFrame, y: pd.DataFrame, n: int) -> pd.DataFrame:
    return pd.DataFrame({name: x[name].rolling(n).cov(y[name]) for name in x})


def _scale(x: pd.DataFrame) -> pd.DataFrame:
    return x.div(x.abs().sum(axis=1), axis=0)


def _neutral(x: pd.DataFrame) -> pd.DataFrame:
    return x.T.groupby(_SECTORS).transform(lambda group: group - group.mean()).T


def _slope(x: pd.DataFrame, n: int) -> pd.DataFrame:
    return x.rolling(n).apply(lambda window: np.polyfit(np.arange(n), window, 1)[0], raw=True)


def _rsquare(x: pd.DataFrame, n: int) -> pd.DataFrame:
    return x.rolling(n).apply(lambda window: np.corrcoef(np.arange(n), window)[0, 1] ** 2, raw=True)


def _last_residual(window: np.ndarray) -> float:
    line = np.polyfit(np.arange(len(window)), window, 1)
    return float(window[-1] - np.polyval(line, len(window) - 1))


def _sumd(x: pd.DataFrame, n: int, side: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    change = x - x.shift(1)
    return side(change).rolling(n).sum() / (change.abs().rolling(n).sum() + 1e-12)


_WORLDQUANT: dict[str, Alpha] = {
    "ALPHA001": (
        "RANK(ARGMAX(SIGNEDPOWER(IF(returns < 0, STD(returns, 20), close), 2), 5)) - 0.5",
        lambda f: (
            _rank(_argmax(_signed(f["close"].where(f["returns"] >= 0, f["returns"].rolling(20).std())), 5))
            - 0.5
        ),
    ),
    "ALPHA002": (
        "-CORR(RANK(DELTA(LOG(volume), 2)), RANK((close - open) / open), 6)",
        lambda f: -_corr(_rank(np.log(f["volume"]).diff(2)), _rank((f["close"] - f["open"]) / f["open"]), 6),
    ),
    "ALPHA003": (
        "-CORR(RANK(open), RANK(volume), 10)",
        lambda f: -_corr(_rank(f["open"]), _rank(f["volume"]), 10),
    ),
    "ALPHA004": ("-TS_RANK(RANK(low), 9)", lambda f: -_ts_rank(_rank(f["low"]), 9)),
    "ALPHA005": (
        "RANK(open - SUM(vwap, 10) / 10) * (-ABS(RANK(close - vwap)))",
        lambda f: _rank(f["open"] - f["vwap"].rolling(10).sum() / 10) * -_rank(f["close"] - f["vwap"]).abs(),
    ),
    "ALPHA006": ("-CORR(open, volume, 10)", lambda f: -_corr(f["open"], f["volume"], 10)),
    "ALPHA007": (
        "IF(MEAN(volume, 20) < volume, -TS_RANK(ABS(DELTA(close, 7)), 30) * SIGN(DELTA(close, 7)), -1)",
        lambda f: (
            (-_ts_rank(f["close"].diff(7).abs(), 30) * np.sign(f["close"].diff(7)))
            .where(f["volume"].rolling(20).mean() < f["volume"], -1.0)
            .where(f["volume"].rolling(20).mean().notna())
        ),
    ),
    "ALPHA012": (
        "SIGN(DELTA(volume, 1)) * (-DELTA(close, 1))",
        lambda f: np.sign(f["volume"].diff(1)) * -f["close"].diff(1),
    ),
    "ALPHA022": (
        "-(DELTA(CORR(high, volume, 5), 5) * RANK(STD(close, 20)))",
        lambda f: -(_corr(f["high"], f["volume"], 5).diff(5) * _rank(f["close"].rolling(20).std())),
    ),
    "ALPHA040": (
        "-RANK(STD(high, 10)) * CORR(high, volume, 10)",
        lambda f: -_rank(f["high"].rolling(10).std()) * _corr(f["high"], f["volume"], 10),
    ),
    "ALPHA044": ("-CORR(high, RANK(volume), 5)", lambda f: -_corr(f["high"], _rank(f["volume"]), 5)),
    "ALPHA_OF_COVARIANCE": (
        "COV(RANK(close), RANK(volume), 5)",  # the heart of 13 and 16, which rank it
        lambda f: _cov(_rank(f["close"]), _rank(f["volume"]), 5),
    ),
    "ALPHA023": (
        "IF(MEAN(high, 20) < high, -DELTA(high, 2), 0)",
        lambda f: (
            (-f["high"].diff(2))
            .where(f["high"].rolling(20).mean() < f["high"], 0.0)
            .where(f["high"].rolling(20).mean().notna())
        ),
    ),
    "ALPHA033": ("RANK(-(1 - open / close))", lambda f: _rank(-(1 - f["open"] / f["close"]))),
    "ALPHA041": ("(high * low) ^ 0.5 - vwap", lambda f: (f["high"] * f["low"]) ** 0.5 - f["vwap"]),
    "ALPHA042": (
        "RANK(vwap - close) / RANK(vwap + close)",
        lambda f: _rank(f["vwap"] - f["close"]) / _rank(f["vwap"] + f["close"]),
    ),
    "ALPHA048": (
        """DEMEAN(CORR(DELTA(close, 1), DELTA(REF(close, 1), 1), 30) * DELTA(close, 1) / close, sector)
        / SUM((DELTA(close, 1) / REF(close, 1)) ^ 2, 30)""",
        lambda f: (
            _neutral(
                _corr(f["close"].diff(1), f["close"].shift(1).diff(1), 30) * f["close"].diff(1) / f["close"]
            )
            / ((f["close"].diff(1) / f["close"].shift(1)) ** 2).rolling(30).sum()
        ),
    ),
    "ALPHA053": (
        "-DELTA((close - low - (high - close)) / (close - low), 9)",
        lambda f: -(((f["close"] - f["low"]) - (f["high"] - f["close"])) / (f["close"] - f["low"])).diff(9),
    ),
    "ALPHA058": (
        "-TS_RANK(DECAY_LINEAR(CORR(DEMEAN(vwap, sector), volume, 4), 8), 6)",
        lambda f: -_ts_rank(_decay(_corr(_neutral(f["vwap"]), f["volume"], 4), 8), 6),
    ),
    "ALPHA060": (
        "-(2 * SCALE(RANK((close - low - (high - close)) / (high - low) * volume)) - SCALE(RANK(ARGMAX(close, 10))))",
        lambda f: (
            -(
                2
                * _scale(
                    _rank(
                        ((f["close"] - f["low"]) - (f["high"] - f["close"]))
                        / (f["high"] - f["low"])
                        * f["volume"]
                    )
                )
                - _scale(_rank(_argmax(f["close"], 10)))
            )
        ),
    ),
    "ALPHA101": (
        "(close - open) / (high - low + 0.001)",
        lambda f: (f["close"] - f["open"]) / (f["high"] - f["low"] + 0.001),
    ),
}


def _signed(x: pd.DataFrame) -> pd.DataFrame:
    return np.sign(x) * x.abs() ** 2


# Alpha158 takes a window as its argument here: KLEN and KMID have none, ROC5 is `ROC(5)`.
_QLIB: dict[str, Alpha] = {
    "KMID": ("(close - open) / open", lambda f: (f["close"] - f["open"]) / f["open"]),
    "KLEN": ("(high - low) / open", lambda f: (f["high"] - f["low"]) / f["open"]),
    "KMID2": (
        "(close - open) / (high - low + 1e-12)",
        lambda f: (f["close"] - f["open"]) / (f["high"] - f["low"] + 1e-12),
    ),
    "KUP": (
        "(high - GREATEST(open, close)) / open",
        lambda f: (f["high"] - np.maximum(f["open"], f["close"])) / f["open"],
    ),
    "KLOW": (
        "(LEAST(open, close) - low) / open",
        lambda f: (np.minimum(f["open"], f["close"]) - f["low"]) / f["open"],
    ),
    "KSFT": (
        "(2 * close - high - low) / open",
        lambda f: (2 * f["close"] - f["high"] - f["low"]) / f["open"],
    ),
    "ROC": ("REF(close, n) / close", lambda f: f["close"].shift(10) / f["close"]),
    "MA": ("MEAN(close, n) / close", lambda f: f["close"].rolling(10).mean() / f["close"]),
    "STDEV": ("STD(close, n) / close", lambda f: f["close"].rolling(10).std() / f["close"]),
    "SLOPE": ("TREND_SLOPE(close, n) / close", lambda f: _slope(f["close"], 10) / f["close"]),
    "RSQR": (
        "TREND_SLOPE(close, n) ^ 2 * n * (n + 1) / 12 / STD(close, n) ^ 2",
        lambda f: _rsquare(f["close"], 10),
    ),
    "RESI": (
        "(close - MEAN(close, n) - TREND_SLOPE(close, n) * (n - 1) / 2) / close",
        lambda f: f["close"].rolling(10).apply(_last_residual, raw=True) / f["close"],
    ),
    "MAXIMUM": ("MAX(high, n) / close", lambda f: f["high"].rolling(10).max() / f["close"]),
    "MINIMUM": ("MIN(low, n) / close", lambda f: f["low"].rolling(10).min() / f["close"]),
    "QTLU": ("QUANTILE(close, n, 0.8) / close", lambda f: f["close"].rolling(10).quantile(0.8) / f["close"]),
    "QTLD": ("QUANTILE(close, n, 0.2) / close", lambda f: f["close"].rolling(10).quantile(0.2) / f["close"]),
    "RANKING": ("TS_RANK(close, n)", lambda f: _ts_rank(f["close"], 10)),
    "RSV": (
        "(close - MIN(low, n)) / (MAX(high, n) - MIN(low, n) + 1e-12)",
        lambda f: (
            (f["close"] - f["low"].rolling(10).min())
            / (f["high"].rolling(10).max() - f["low"].rolling(10).min() + 1e-12)
        ),
    ),
    "IMAX": ("ARGMAX(high, n) / n", lambda f: _argmax(f["high"], 10) / 10),
    "IMIN": ("ARGMIN(low, n) / n", lambda f: _argmax(-f["low"], 10) / 10),
    "IMXD": (
        "(ARGMAX(high, n) - ARGMIN(low, n)) / n",
        lambda f: (_argmax(f["high"], 10) - _argmax(-f["low"], 10)) / 10,
    ),
    "CORRELATION": (
        "CORR(close, LOG(volume + 1), n)",
        lambda f: _corr(f["close"], np.log(f["volume"] + 1), 10),
    ),
    "CORD": (
        "CORR(close / REF(close, 1), LOG(volume / REF(volume, 1) + 1), n)",
        lambda f: _corr(f["close"] / f["close"].shift(1), np.log(f["volume"] / f["volume"].shift(1) + 1), 10),
    ),
    "CNTP": (
        "MEAN(close > REF(close, 1), n)",
        lambda f: (
            (f["close"] > f["close"].shift(1))
            .astype(float)
            .where(f["close"].shift(1).notna())
            .rolling(10)
            .mean()
        ),
    ),
    "SUMP": (
        "SUM(GREATEST(DELTA(close, 1), 0), n) / (SUM(ABS(DELTA(close, 1)), n) + 1e-12)",
        lambda f: _sumd(f["close"], 10, lambda change: change.clip(lower=0)),
    ),
    "SUMN": (
        "SUM(GREATEST(-DELTA(close, 1), 0), n) / (SUM(ABS(DELTA(close, 1)), n) + 1e-12)",
        lambda f: _sumd(f["close"], 10, lambda change: (-change).clip(lower=0)),
    ),
    "VMA": (
        "MEAN(volume, n) / (volume + 1e-12)",
        lambda f: f["volume"].rolling(10).mean() / (f["volume"] + 1e-12),
    ),
    "VSTD": (
        "STD(volume, n) / (volume + 1e-12)",
        lambda f: f["volume"].rolling(10).std() / (f["volume"] + 1e-12),
    ),
    "WVMA": (
        "STD(ABS(close / REF(close, 1) - 1) * volume, n) / (MEAN(ABS(close / REF(close, 1) - 1) * volume, n) + 1e-12)",
        lambda f: (
            (f["returns"].abs() * f["volume"]).rolling(10).std()
            / ((f["returns"].abs() * f["volume"]).rolling(10).mean() + 1e-12)
        ),
    ),
}
_MACROS = [
    Macro("SIGNEDPOWER", ("x", "a"), "SIGN(x) * ABS(x) ^ a"),
    Macro("TREND_SLOPE", ("x", "n"), "6 * (DECAY_LINEAR(x, n) - MEAN(x, n)) / (n - 1)"),
    *(Macro(name, (), text) for name, (text, _) in _WORLDQUANT.items()),
    *(Macro(name, ("n",), text) for name, (text, _) in _QLIB.items()),
]


def _table(frames: Frames) -> pl.DataFrame:
    rows: list[dict[str, object]] = [
        {
            "date": date.date(),
            "entity": entity,
            "sector": _SECTORS[entity],
            **{name: frames[name].loc[date, entity] for name in frames},
        }
        for date in frames["close"].index
        for entity in frames["close"].columns
    ]
    return pl.DataFrame(rows).with_columns(pl.col("returns").fill_nan(None))


_FRAMES = _frames()
_TABLE = _table(_FRAMES)


@pytest.mark.parametrize("name", [*_WORLDQUANT, *_QLIB])
def test_a_published_alpha_is_what_its_formula_gives_in_pandas(name: str) -> None:
    call, (_, formula) = (
        (f"{name}()", _WORLDQUANT[name]) if name in _WORLDQUANT else (f"{name}(10)", _QLIB[name])
    )
    found = evaluate(call, _TABLE, macros=_MACROS)
    expected = formula(_FRAMES)
    assert expected.notna().to_numpy().mean() > 0.3
    assert found["date"][0] == dt.date(2021, 1, 1)
    actual = found["value"].to_numpy().reshape(expected.shape)
    np.testing.assert_allclose(actual, expected.to_numpy(), rtol=1e-7, atol=1e-9)
