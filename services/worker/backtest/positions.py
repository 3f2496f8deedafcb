"""List the positions of a path: each from the session that opens it to the one that ends it."""

from __future__ import annotations

import numpy as np
import polars as pl

from optaic.rules.columns import DATE, ENTITY
from worker.backtest.execution import Path
from worker.backtest.panel import Panel
from worker.backtest.tables import Matrix, Numbers

_SIDES = pl.Series(["short", "long"])


def list_positions(panel: Panel, path: Path) -> pl.DataFrame:
    """Return a row for each position, by entity and begin; one that turns from long to short ends, and another begins."""
    sessions, width = path.values.shape
    sides = np.sign(path.values).astype(np.int8)
    before = np.vstack([np.zeros((1, width), dtype=np.int8), sides[:-1]])
    changed = sides != before
    # In the order of members and of sessions, the begins and the ends of one member alternate.
    columns, begins = np.nonzero((changed & (sides != 0)).T)
    ended = np.nonzero((changed & (before != 0)).T)
    ends = np.full(columns.size, sessions, dtype=np.int64)
    if columns.size:
        last = np.append(
            columns[1:] != columns[:-1], np.ones(1, dtype=np.bool_)
        )  # only these may still be held
        is_held = last & (sides[-1, columns] != 0)
        ends[~is_held] = ended[1]
    exits = np.minimum(ends, sessions - 1)
    prices, gains = _exit_prices(panel, exits, columns), np.cumsum(_gains(panel, path), axis=0)
    entries = panel.closes[begins, columns]
    side = sides[begins, columns].astype(np.float64)
    dates = pl.Series(DATE, panel.dates, dtype=pl.Date)
    return pl.DataFrame(
        {
            ENTITY: pl.Series(panel.entities, dtype=pl.String).gather(columns),
            "side": _SIDES.gather((side > 0).astype(np.uint32)),
            "entry_date": dates.gather(begins),
            "exit_date": dates.gather(pl.Series(np.where(ends < sessions, ends, -1)).replace(-1, None)),
            "sessions": ends - begins,
            "entry_price": entries,
            "exit_price": prices,
            "return": side * (prices / entries - 1.0),
            "gain": gains[exits, columns] - gains[begins, columns],
            "costs": _costs(path, columns * sessions + begins, sessions),
        }
    )


def _exit_prices(panel: Panel, exits: Numbers, columns: Numbers) -> Matrix:
    """Return the price at the end of each position: the close, or at which a delisted member is sold."""
    sold: Matrix = np.full(len(panel.entities), np.nan)
    sessions = np.full(len(panel.entities), -1, dtype=np.int64)  # a member is delisted once
    for session, sale in panel.sales.items():
        sold[sale.columns], sessions[sale.columns] = sale.prices, session
    prices: Matrix = np.where(sessions[columns] == exits, sold[columns], panel.closes[exits, columns])
    return prices


def _gains(panel: Panel, path: Path) -> Matrix:
    """Return what the shares that were held at the session before have gained on each session."""
    gains = np.zeros_like(path.values)
    np.multiply(path.values[:-1], panel.closes[1:] / panel.closes[:-1] - 1.0, out=gains[1:])
    for session, sale in panel.sales.items():
        if session:
            held, old = path.values[session - 1, sale.columns], panel.closes[session - 1, sale.columns]
            gains[session, sale.columns] = held * (sale.prices / old - 1.0)
    return gains


def _costs(path: Path, begins: Numbers, sessions: int) -> Matrix:
    """Return the costs of each position: a trade belongs to the one of its member that began last.

    Args:
        path: with the executions.
        begins: member x sessions + session of each position, in order.
        sessions: how many there are.
    """
    made = path.executions
    keys = np.concatenate(
        [np.empty(0, dtype=np.int64), *(one.columns * sessions + one.session for one in made)]
    )
    costs = np.concatenate([np.empty(0), *(one.commission + one.slippage for one in made)])
    owners = np.searchsorted(begins, keys, side="right") - 1
    owned = np.bincount(np.maximum(owners, 0), weights=costs, minlength=begins.size).astype(np.float64)
    return owned[: begins.size]
