"""The fixed backtest procedure on frames; it reads no store and calls no service."""

from worker.backtest.procedure import run
from worker.backtest.result import BacktestResult
from worker.backtest.settings import BacktestSettings

__all__ = ["BacktestResult", "BacktestSettings", "run"]
