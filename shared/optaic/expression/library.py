"""The macros that every installation has; the service publishes them as definitions of the kind OP_MACRO."""

from __future__ import annotations

from collections.abc import Mapping

from optaic.expression.macros import Macro

MACROS: Mapping[str, Macro] = {
    macro.name: macro
    for macro in (
        Macro("MOMENTUM", ("x", "long", "short"), "ZSCORE(REF(x, short) / REF(x, long) - 1)"),
        Macro("REVERSAL", ("x", "n"), "-ZSCORE(PCT(x, n))"),
        Macro("VOLATILITY", ("x", "n"), "STD(LOG(x / REF(x, 1)), n)"),
        Macro("SHARPE", ("x", "n"), "MEAN(PCT(x, 1), n) / STD(PCT(x, 1), n)"),
        Macro("DRAWDOWN", ("x", "n"), "x / MAX(x, n) - 1"),
        Macro("TREND", ("x", "fast", "slow"), "EMA(x, fast) / EMA(x, slow) - 1"),
    )
}
