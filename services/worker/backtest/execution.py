"""Execute what was decided: sales of delisted members, and rebalancings at a session's closes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from optaic.plugins import PluginError
from worker.backtest.costs import commissions, slippages
from worker.backtest.eligibility import Choice
from worker.backtest.panel import Panel, Sale
from worker.backtest.settings import BacktestSettings
from worker.backtest.tables import Mask, Matrix, Numbers
from worker.backtest.weights import Targets, find_targets

EXECUTION_LAG = 1  # sessions between a decision's close and its execution at a close


@dataclass(frozen=True)
class Execution:
    """One rebalancing, or the sale of delisted members; money in the units of the capital."""

    decision: int | None  # session whose signal it follows; None: a delisting
    session: int
    nav: float  # before costs
    traded: float  # the absolute values of all trades
    commission_sum: float
    slippage_sum: float
    # Of the members that trade.
    columns: Numbers
    weights: Matrix
    trades: Matrix  # value bought (positive) or sold
    prices: Matrix
    commission: Matrix
    slippage: Matrix

    @property
    def costs(self) -> float:
        """Return the costs of all trades."""
        return self.commission_sum + self.slippage_sum


@dataclass
class Skipped:
    """The counts of what was decided and could not be executed as it was."""

    executions: int = 0  # nobody on a side could be traded, or there was no capital left
    choices: int = 0  # chosen members that could not be traded
    volumes: int = 0  # trades without a known volume


@dataclass(frozen=True)
class Path:
    """The simulated portfolio at each session's close, after that session's execution."""

    values: Matrix  # (sessions, entities)
    nav: Matrix  # (sessions,)
    executions: list[Execution]
    skipped: Skipped = field(default_factory=Skipped)


def simulate(panel: Panel, choices: Mapping[int, Choice], settings: BacktestSettings) -> Path:
    """Simulate holdings, cash and executions over the panel's sessions; between executions shares stay fixed.

    Raises:
        PluginError: `CostsExceedCapital` or `CapitalLost`.
    """
    portfolio = _Portfolio(panel, settings)
    due = {decision + EXECUTION_LAG: decision for decision in choices}
    for session in sorted({*due, *panel.sales}):
        if session >= len(panel.dates):
            continue  # never executed
        if (sale := panel.sales.get(session)) is not None:
            portfolio.sell(session, sale)
        if (decision := due.get(session)) is not None:
            portfolio.rebalance(session, decision, choices[decision])
        portfolio.keep(session)
    return portfolio.path()


class _Portfolio:
    """The shares and the cash, and what became of them."""

    def __init__(self, panel: Panel, settings: BacktestSettings) -> None:
        self._panel, self._settings = panel, settings
        self._prices = np.ascontiguousarray(panel.closes)
        self._is_full = None if panel.tradable is None else np.asarray(panel.tradable.all(axis=1))
        self._shares, self._cash = np.zeros(len(panel.entities)), settings.initial_capital
        self._kept: list[tuple[int, Matrix, float]] = [(0, self._shares, self._cash)]
        self._executions: list[Execution] = []
        self._skipped = Skipped()

    def keep(self, session: int) -> None:
        """Record what is held from a session's close on."""
        self._kept.append((session, self._shares, self._cash))

    def sell(self, session: int, sale: Sale) -> None:
        """Sell delisted members at their last prices."""
        held = self._shares[sale.columns]
        if not held.any():
            return
        proceeds = held * sale.prices
        commission = commissions(np.abs(proceeds), self._settings)
        others = self._shares.copy()
        others[sale.columns] = 0.0
        nav = float((others * self._prices[session]).sum()) + self._cash + float(proceeds.sum())
        self._shares = others
        self._cash += float(proceeds.sum()) - float(commission.sum())
        self._executions.append(
            _record(
                (None, session, nav),
                held != 0.0,
                (np.zeros_like(held), -proceeds, sale.prices, commission, np.zeros_like(held)),
                sale.columns,
            )
        )

    def rebalance(self, session: int, decision: int, choice: Choice) -> None:
        """Trade to what a decision chose.

        Raises:
            PluginError: `CostsExceedCapital` or `CapitalLost`.
        """
        panel, settings, prices = self._panel, self._settings, self._prices[session]
        held = self._shares * prices
        nav = float(held.sum()) + self._cash
        if nav < 0.0:
            raise _lost(panel, session)
        tradable = None if self._is_full is None or self._is_full[session] else _row(panel, session)
        if tradable is not None:
            chosen = np.concatenate((choice.longs, choice.shorts))
            self._skipped.choices += int(np.count_nonzero(~tradable[chosen]))
        found = find_targets(choice, tradable, held.size, settings)
        if found is None or nav == 0.0:
            self._skipped.executions += 1
            return
        weights = found.weights
        free, frozen = nav, None  # cash and what can be traded; which holdings cannot
        if tradable is not None and (stuck := ~tradable & (held != 0.0)).any():
            frozen, free = stuck, nav - float(held[stuck].sum())
            weights = _within_budgets(found, held[stuck], nav)
        trades = weights * nav - held
        if frozen is not None:
            trades[frozen] = 0.0
        size = np.abs(trades)
        commission = commissions(size, settings)
        volumes = None if panel.volumes is None else panel.volumes[session]
        slippage, lacking = slippages(size, nav, prices, volumes, settings)
        self._skipped.volumes += lacking
        execution = _record(
            (decision, session, nav), trades != 0.0, (weights, trades, prices, commission, slippage)
        )
        if frozen is None:
            scale = (nav - execution.costs) / nav
            shares = weights * nav * scale / prices
            cash = float((1.0 - weights.sum()) * nav * scale)
        else:
            targets, cash, scale = _pay(weights * nav, free, execution.costs)
            shares = targets / prices
            shares[frozen] = self._shares[frozen]
        if scale <= 0.0:
            raise PluginError(
                f"the costs on {panel.dates[session]} consume all capital; raise the initial capital or lower the costs",
                type="CostsExceedCapital",
            )
        self._shares, self._cash = shares, cash
        self._executions.append(execution)

    def path(self) -> Path:
        """Return the whole path.

        Raises:
            PluginError: `CapitalLost`.
        """
        count = len(self._panel.dates)
        begins = np.array([session for session, _, _ in self._kept] + [count])
        # Of several records for one session the last one counts.
        lengths = np.diff(begins)
        shares = np.repeat(np.array([each for _, each, _ in self._kept]), lengths, axis=0)
        values = np.multiply(shares, self._prices, out=shares)
        # The sum goes member by member, whatever the sessions are: so it has the same digits in every slice.
        nav = np.asfortranarray(values).sum(axis=1) + np.repeat([cash for _, _, cash in self._kept], lengths)
        if (lost := np.flatnonzero(nav < 0.0)).size:
            raise _lost(self._panel, int(lost[0]))
        return Path(values, nav, self._executions, self._skipped)


def _within_budgets(found: Targets, frozen: Matrix, nav: float) -> Matrix:
    """Scale each side to what the holdings that cannot be traded leave of it; what fits stays as it is."""
    result = found.weights.copy()
    for sign, gross in ((1.0, found.gross_long), (-1.0, found.gross_short)):
        side, stuck = sign * result > 0.0, sign * frozen
        wanted, used = float(np.abs(result[side]).sum()), float(stuck[stuck > 0.0].sum())
        if used > 0.0 and wanted > 0.0:
            result[side] *= min(1.0, max(0.0, gross * nav - used) / (wanted * nav))
    return result


def _pay(targets: Matrix, free: float, costs: float) -> tuple[Matrix, float, float]:
    """Pay costs from the cash, and what it lacks from the purchases; return these, the cash, and what is left of each purchase.

    Args:
        targets: the values to hold, before costs, of what can be traded.
        free: the value of that and of the cash together.
        costs: at least 0.
    """
    cash = free - float(targets.sum())
    from_cash = min(costs, max(0.0, cash))
    if (lacking := costs - from_cash) == 0.0:
        return targets, cash - from_cash, 1.0
    bought = targets > 0.0
    whole = float(targets[bought].sum())
    scale = 1.0 - lacking / whole if whole > 0.0 else 0.0
    return np.where(bought, targets * scale, targets), cash - from_cash, scale


def _record(
    when: tuple[int | None, int, float],
    has_trade: Mask,
    amounts: tuple[Matrix, Matrix, Matrix, Matrix, Matrix],
    columns: Numbers | None = None,
) -> Execution:
    _, trades, _, commission, slippage = amounts
    traded = np.flatnonzero(has_trade)
    return Execution(
        *when,
        float(np.abs(trades).sum()),
        float(commission.sum()),
        float(slippage.sum()),
        traded if columns is None else columns[traded],
        *(each[traded] for each in amounts),
    )


def _row(panel: Panel, session: int) -> Mask:
    if panel.tradable is None:
        raise ValueError("every member can be traded on every session; there is no row to read")
    row: Mask = panel.tradable[session]
    return row


def _lost(panel: Panel, session: int) -> PluginError:
    return PluginError(
        f"on {panel.dates[session]} the short positions have lost more than all capital; choose more entities a side "
        "(top_n), or no short positions (long_short)",
        type="CapitalLost",
    )
