"""Expressions computed in several threads: the same bits, no thread that stays, and nothing that waits for ever."""

import datetime as dt
import os
import subprocess
import sys
import threading

import numpy as np
import polars as pl
import pytest

from optaic.expression import OPERATORS, Signature, kernels, parse, rolling, threads
from optaic.expression.compiler import evaluate

_SESSIONS, _ENTITIES = 80, 40
_DEADLINE = 120  # seconds for a program that must not hang
_INFIX = ("x + y", "x ^ y", "x ^ 2", "2 ^ y", "x ^ 0.3", "EXP(LOG(ABS(x))) ^ MEAN(y, 5, 2)")


def write_call(signature: Signature, *, has_fewest: bool) -> str:
    """Return a call of an operator."""
    numbers = {"n": "12", "p": "0.1", "q": "0.3", "hump": "0.5"}
    arguments = ["x", "y", "x + y"][: signature.values]
    arguments += [numbers[each.name] for each in signature.parameters if each.name in numbers]
    if has_fewest and any(each.name == "min_periods" for each in signature.parameters):
        arguments.append("min_periods=4")
    return f"{signature.name}({', '.join(arguments)})"


CALLS = [
    *_INFIX,
    *{write_call(each, has_fewest=is_so): 0 for each in OPERATORS.values() for is_so in (False, True)},
]


def make_table() -> pl.DataFrame:
    """Return entities with and without gaps, of sizes that need scales, and some without any spread."""
    rng = np.random.default_rng(5)
    shape = (_SESSIONS, _ENTITIES)
    x, y = (np.exp(rng.normal(size=shape)) * 10.0 ** rng.integers(-3, 3, _ENTITIES) for _ in range(2))
    x[:, 20:][rng.random((_SESSIONS, 20)) < 0.1] = np.nan
    x[:, 30] = np.nan
    x[:, 31:33] = 7.7
    x[:, 33] *= 1e300
    y[:, 34] *= -1e-200
    days = [dt.date(2020, 1, 1) + dt.timedelta(day) for day in range(_SESSIONS)]
    keys = pl.DataFrame({"date": days}).join(pl.DataFrame({"entity": range(_ENTITIES)}), how="cross")
    return keys.with_columns(
        **{name: pl.Series(each.ravel(), nan_to_null=True) for name, each in (("x", x), ("y", y))}
    )


def allow(patch: pytest.MonkeyPatch, count: int) -> None:
    """Have everything computed by so many threads, in small parts."""
    patch.setattr(threads, "_FEWEST", 0)
    patch.setattr(threads, "_MOST", count)
    patch.setattr(pl, "thread_pool_size", lambda: count)
    patch.setattr(kernels, "_AT_ONCE", 300)
    patch.setattr(rolling, "_AT_ONCE", 800)


def test_every_call_has_the_same_bits_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_table()
    expected = {text: evaluate(parse(text), table) for text in CALLS}
    assert threads.count_threads(table.height) == 1, "a small table is computed by one"
    for count in (1, 2, 3, 7):
        allow(monkeypatch, count)
        for text in CALLS:
            found = evaluate(parse(text), table)
            assert found["value"].to_numpy().tobytes() == expected[text]["value"].to_numpy().tobytes(), (
                text,
                count,
            )
    assert threading.active_count() == 1 or not [
        each for each in threading.enumerate() if "PoolExecutor" in each.name
    ]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_so_many_threads_compute_at_once(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    allow(monkeypatch, count)
    barrier = threading.Barrier(count)
    threads.compute_parts(lambda _: barrier.wait(_DEADLINE), range(3 * count), 1)


def test_a_thread_has_the_settings_of_the_one_that_it_computes_for(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, 2)
    barrier, found = threading.Barrier(2), []

    def compute(_: int) -> None:
        barrier.wait(_DEADLINE)
        found.append(np.geterr()["divide"])

    with np.errstate(divide="print"):
        threads.compute_parts(compute, range(2), 1)
    assert found == ["print", "print"]


@pytest.mark.parametrize("is_first", [True, False])
def test_an_error_ends_the_computation(monkeypatch: pytest.MonkeyPatch, is_first: bool) -> None:
    allow(monkeypatch, 2)
    barrier, done, caller = threading.Barrier(2), [], threading.get_ident()

    def compute(part: int) -> None:
        if part < 2:
            barrier.wait(_DEADLINE)
            if (threading.get_ident() == caller) is is_first:
                raise MemoryError("no room")
        done.append(part)

    with pytest.raises(MemoryError, match="no room"):
        threads.compute_parts(compute, range(100_000), 1)
    assert len(done) < 100_000


def test_where_no_thread_can_begin_one_computes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, 3)
    done: list[int] = []

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    threads.compute_parts(done.append, range(10), 1)
    assert done == list(range(10))


_LARGE = """
import os, sys
import numpy as np, polars as pl
from optaic.expression import evaluate, kernels, threads
x = np.random.default_rng(0).random((300, 1000))
def compute():
    assert threads.count_threads(x.size) == int(sys.argv[1])
    for name, numbers in (("EXP", ()), ("STD", (20, 5)), ("KURT", (20, 5)), ("MEDIAN", (20, 5))):
        found = kernels.KERNELS[name]([x], numbers)
    return found
"""


def run(program: str, *arguments: str, threads_of_polars: str) -> None:
    """Run a program that ends in time and without an error."""
    done = subprocess.run(
        [sys.executable, "-c", _LARGE + program, *arguments],
        env={**os.environ, "POLARS_MAX_THREADS": threads_of_polars},
        capture_output=True,
        check=False,
        timeout=_DEADLINE,
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing can be forked")
def test_a_process_that_was_forked_after_an_evaluation_computes_what_needs_no_threads_of_polars() -> None:
    program = """
expected = compute()
import threading
assert threading.active_count() == 1, "no thread is left that a fork would lose"
child = os.fork()
if not child:
    os._exit(0 if np.array_equal(compute(), expected, equal_nan=True) else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    run(program, "2", threads_of_polars="2")


@pytest.mark.parametrize("count", ["1", "2"])
def test_polars_threads_never_wait_for_threads_that_need_polars(count: str) -> None:
    program = """
operators = {name: kernels.IMPLEMENTATIONS[name] for name in ("EXP", "POW", "MEDIAN")}
values = pl.DataFrame({"x": x.ravel()})
def whole(column):
    assert threads.count_threads(x.size) == 1, "polars computes it"
    return pl.Series(kernels.KERNELS["LOG"]([column.to_numpy()], ()))
found = values.select(
    e=kernels.IMPLEMENTATIONS["EXP"]([pl.col("x")], ()),
    p=kernels.IMPLEMENTATIONS["POW"]([pl.col("x"), pl.col("x")], ()),
    q=kernels.IMPLEMENTATIONS["MEDIAN"]([pl.col("x")], (5, 2)),
    u=pl.col("x").map_batches(whole, return_dtype=pl.Float64),
    v=pl.col("x").map_batches(whole, return_dtype=pl.Float64),
)
assert found.height == x.size
"""
    run(program, count, threads_of_polars=count)
