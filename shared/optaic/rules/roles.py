"""The roles of upstreams to which programs give a meaning."""

from __future__ import annotations

INPUT = "input"  # of what a derivation or an experiment reads
SIGNAL, SECONDARY_SIGNAL, PRICES, MEMBERSHIP, OPTIMIZER = (
    "signal",
    "secondary_signal",
    "prices",
    "membership",
    "optimizer",
)  # of a backtest
FEATURES, TARGET = "features", "target"  # of a model
COVARIANCE = "covariance"  # of a portfolio optimizer, which reads signals too
TRAINED, MONITORED = (
    "model",
    "monitored",
)  # an instance's own flow, as its inference and its monitoring read it
