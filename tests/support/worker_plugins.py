"""Pipelines that misbehave on request; imported by the worker under test through `code_ref`."""

from __future__ import annotations

import datetime as dt
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import structlog

from optaic.expression import Parameter, Scope
from optaic.plugins import Operator, Pipeline, PipelineContext, PluginError
from worker.builtin.simple_accessor import SimpleAccessor


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until it holds, for 20 s at most."""
    limit = time.monotonic() + 20
    while not condition() and time.monotonic() < limit:
        time.sleep(0.02)


def talk(config: Mapping[str, Any]) -> None:
    """Print and log in every way; with `fails` fail, with `secret` tell it."""
    secret = str(config.get("secret", ""))
    print("printed")  # noqa: T201 - what is tested
    print("on standard error", file=sys.stderr)  # noqa: T201 - the same
    os.write(1, b"by native code\n")
    log = logging.getLogger("my.code")
    log.debug("never shown")
    log.info("of level %s", "info")
    log.error("of two\nlines")
    structlog.get_logger("structured").warning("happened", count=3)
    warnings.warn("take care", stacklevel=1)
    if secret:
        print(f"password={secret}")  # noqa: T201 - what is tested
        log.warning("connect to postgresql://user:%s@host/db", secret)
    if config.get("fails"):
        raise PluginError("there is no file panel.csv", type="SourceNotFound")


class MuteError(PluginError):
    """Does what an exception should not."""

    def __init__(self) -> None:
        pass

    def __str__(self) -> str:
        raise RuntimeError("no text")


def be_mute(_config: Mapping[str, Any]) -> None:
    """Fail without a word."""
    raise MuteError


_ACTS = {"talk": talk, "mute": be_mute}


class Probe(Pipeline):
    """`behaviour`: `table`, `raise`, `odd_texts`, `mute`, `plugin_error`, `exit`, `nothing`, `talk`, `wait` or `sleep`."""

    def run(self, context: PipelineContext) -> pl.DataFrame:
        """Return one row more than before, where it does return."""
        behaviour = str(context.config.get("behaviour", "table"))
        if mark := context.config.get("mark"):
            Path(str(mark)).write_text(f"{time.time()}", encoding="ascii")
        context.progress(0.25, f"doing {behaviour}")
        if behaviour == "raise":
            raise ZeroDivisionError("nothing to divide by")
        if behaviour == "odd_texts":
            context.progress(0.5, "a\0b\udc80")
            raise ValueError("no \0, no \udc80")
        if act := _ACTS.get(behaviour):
            act(context.config)
        if behaviour == "plugin_error":
            raise PluginError("the vendor has no licence", type="NoLicence")
        if behaviour == "exit":
            sys.exit(3)
        if behaviour == "nothing":
            return None  # type: ignore[return-value] # the mistake under test
        if behaviour == "wait":
            gate = Path(str(context.config["gate"]))
            gate.with_suffix(".entered").touch()
            wait_until(gate.exists)
        if behaviour == "sleep":
            time.sleep(float(str(context.config["seconds"])))
        context.progress(0.75, "nearly there")
        previous = context.previous
        count = 1 if previous is None else previous.height + 1
        dates = pl.date_range(pl.date(2020, 1, 1), pl.date(2020, 1, count), eager=True)
        return pl.DataFrame({"date": dates, "entity": ["A"] * count, "value": [1.0] * count})


class OddColumn(Pipeline):
    """A table whose third column is called as `column` says."""

    def run(self, context: PipelineContext) -> pl.DataFrame:
        """No rows."""
        return pl.DataFrame({"date": [], "entity": [], str(context.config["column"]): []})


class Twice(Operator):
    """An operator of the tests."""

    name = "TWICE"
    scope = Scope.ELEMENTWISE

    def compile(self, values: Sequence[pl.Expr], parameters: Sequence[float]) -> pl.Expr:
        """Return two of it."""
        del parameters
        return values[0] * 2


class Countdown(Pipeline):
    """As many rows as `days` says, which Python counts with whole numbers only."""

    def run(self, context: PipelineContext) -> pl.DataFrame:
        """Return the types of all numbers of the configuration, in words, on each row."""
        config: Any = context.config
        words = ", ".join(f"{name} {type(value).__name__}" for name, value in sorted(config.items()))
        dates = [dt.date(2020, 1, 1) + dt.timedelta(days=day) for day in range(config["days"])]
        return pl.DataFrame({"date": dates, "entity": ["A"] * len(dates), "words": [words] * len(dates)})


class Back(Operator):
    """What was n sessions ago; polars shifts by whole numbers only."""

    name = "BACK"
    scope = Scope.TIME_SERIES
    parameters = (Parameter("n", minimum=1, maximum=10), Parameter("by", 0, 1, is_integer=False, default=1))

    def compile(self, values: Sequence[pl.Expr], parameters: Sequence[float]) -> pl.Expr:
        """Multiplied."""
        n, by = parameters
        assert isinstance(n, int)
        assert isinstance(by, float)
        return values[0].shift(n) * by


class Shown(Pipeline):
    """The table that a Parquet file holds, whatever it is; `columns` is what decides its columns."""

    shaped_by = frozenset({"columns"})

    def run(self, context: PipelineContext) -> pl.DataFrame:
        """Return the file at `path`."""
        return pl.read_parquet(str(context.config["path"]))


class GatedAccessor(SimpleAccessor):
    """An accessor that waits for the file `gate`, or ends its process, as soon as a run reads by it."""

    def read(self, *given: Any, **selection: Any) -> pl.DataFrame:
        """Return everything, if the gate opens."""
        gate = Path(str(self.config["gate"]))
        gate.with_suffix(".entered").write_text(str(os.getpid()), encoding="ascii")
        if self.config["is_fatal"]:
            os.kill(os.getpid(), signal.SIGKILL)
        wait_until(gate.exists)
        return super().read(*given, **selection)
