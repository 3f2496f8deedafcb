"""An optimizer whose configuration says what it does; imported by the worker under test through `code_ref`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from optaic.plugins import Allocation, NoSolution, Optimizer
from support.worker_plugins import wait_until


class ToldWeights(Optimizer):
    """The weights of `weights`; with `gate` it waits for this file, and with `unsolved` it finds none."""

    def optimize(self, scores: Mapping[str, float], returns: pl.DataFrame) -> Allocation:
        """Return the configured weights; the diagnostics say what it was asked."""
        if self.config.get("unsolved"):
            raise NoSolution("constraints.max_weight: too low")
        if gate := self.config.get("gate"):
            Path(f"{gate}.entered").touch()
            wait_until(Path(str(gate)).exists)
        weights = self.config.get("weights")
        assert isinstance(weights, Mapping)
        last = returns["date"].max()
        found = {name: float(value) for name, value in weights.items()}
        return Allocation(found, {"scores": float(len(scores)), "last": str(last)})
