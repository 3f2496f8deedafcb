"""Describe why a run failed, in a form that a report can carry."""

from __future__ import annotations

import json
import signal
import traceback
from dataclasses import asdict, dataclass
from typing import Self

from optaic.plugins import PluginError
from optaic.rules.limits import longest_text
from optaic.run.v1.run_pb2 import RunError
from redaction import redact
from servicekit.errors import DomainError

_LONGEST_TYPE, _LONGEST_MESSAGE = longest_text(RunError, "type"), longest_text(RunError, "message")
_LONGEST_TRACE = 1_000_000  # characters
_LONGEST_READ = 2 * _LONGEST_TRACE
_MEANINGS = {
    "MemoryError": "the process could not get the memory that it requested; the machine is out of memory",
    "KeyboardInterrupt": "the process was interrupted",
    "AssertionError": "an assertion does not hold",
    "NotImplementedError": "the code is not implemented",
    "RecursionError": "a function recursed too deeply",
    "TimeoutError": "an operation timed out",
}
_SIGNALS = {
    signal.SIGKILL: ", probably out of memory",
    signal.SIGSEGV: ": native code accessed memory that it does not own",
    signal.SIGBUS: ": native code accessed memory that does not exist, for example a mapped file on a full disk",
    signal.SIGABRT: ": native code aborted",
    signal.SIGILL: ": native code was built for another processor",
    signal.SIGFPE: ": native code divided by zero",
    signal.SIGTERM: ": another process asked it to stop",
    signal.SIGXCPU: ": it exceeded its limit of processor time",
}


@dataclass(frozen=True)
class Failure:
    """Type and message as the run shows them, and the traceback; empty where there is none."""

    type: str
    message: str
    trace: str

    def pack(self) -> bytes:
        """Serialize the failure as bytes."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Parse a failure from bytes that the process of user code sent.

        Raises:
            ValueError: they say something else.
        """
        found = json.loads(data)
        if not isinstance(found, dict):
            raise ValueError("no failure")  # noqa: TRY004 - the caller knows one error
        texts = [to_text(found.get(name, ""), longest) for name, longest in _LIMITS.items()]
        return cls(*texts)


_LIMITS = {"type": _LONGEST_TYPE, "message": _LONGEST_MESSAGE, "trace": _LONGEST_TRACE}


def to_text(value: object, longest: int) -> str:
    """Convert a text of user code for a message: without secrets, NUL and lone surrogates, and not too long.

    A report that is refused for its text would leave the run to its lease.
    """
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - this runs user code
        text = f"<{type(value).__name__}>"
    text = text[:_LONGEST_READ].encode(errors="backslashreplace").decode().replace("\0", "\\0")
    return redact(text)[:longest]  # before it is cut: half a password would not be found


def describe_error(error: BaseException) -> Failure:
    """Describe an exception that was raised."""
    if not isinstance(error, Exception):  # SystemExit and the like
        cause, error = error, RuntimeError(f"user code raised {error!r}")
        error.__cause__ = cause
    trace = to_text("".join(traceback.format_exception(error)), _LONGEST_TRACE)
    kind: object = ""
    if isinstance(error, PluginError):
        kind = getattr(error, "type", "")  # a subclass may not have called ours
    elif isinstance(error, DomainError):
        kind = error.reason
    message = to_text(error, _LONGEST_MESSAGE)
    if not message.strip():
        message = to_text(_describe_without_message(error), _LONGEST_MESSAGE)
    return Failure(to_text(kind or type(error).__name__, _LONGEST_TYPE), message, trace)


def _describe_without_message(error: Exception) -> str:
    """Describe an exception that has no message."""
    named = next((_MEANINGS[base.__name__] for base in type(error).__mro__ if base.__name__ in _MEANINGS), "")
    frames = traceback.extract_tb(error.__traceback__)
    place = f", raised at line {frames[-1].lineno} of {frames[-1].filename}" if frames else ""
    return f"{type(error).__name__}{f': {named}' if named else ' without a message'}{place}"


def describe_death(exit_code: int | None, tail: str | None, fault: str) -> Failure:
    """Describe how a process ended that could not report it.

    `exit_code` is negative after a signal and None if unknown; `tail` is the end of its output,
    None if unknown, `fault` what Python's faulthandler wrote.
    """
    kind = "PROCESS_KILLED"
    if exit_code is None:
        what = "the process that computed the run and the process that supervised it were killed"
    elif exit_code < 0:
        what = f"the process was killed by {_name_signal(-exit_code)}"
    else:
        kind = "PROCESS_EXITED"
        what = f"the process exited with code {exit_code} before it returned a result"
    places = [line.strip() for line in fault.splitlines() if line.startswith("  File ")]
    where = f", at {places[0]}" if places else ""
    said = (
        f"; the last lines of its output:\n{tail}" if tail else "" if tail is None else "; it printed nothing"
    )
    return Failure(kind, to_text(f"{what}{where}{said}", _LONGEST_MESSAGE), to_text(fault, _LONGEST_TRACE))


def describe_unsupervised(failure: Failure) -> Failure:
    """Describe a failure of user code whose supervising process was killed: what it prints or asks for then fails."""
    what = "the process that supervised the run was killed, and then the code of the run failed"
    return Failure(
        "PROCESS_KILLED",
        f"{what} with {failure.type}: {failure.message}"[:_LONGEST_MESSAGE],
        failure.trace,
    )


def describe_timeout(seconds: float) -> Failure:
    """Describe a run whose time was over."""
    text = (
        f"the run took longer than its time limit of {seconds:g} s, so all its processes were ended. Have it need less time, or "
        "raise `schedule.timeout` of the instance; where it has none, OPTAIC_RUN_TIMEOUT_SECONDS of the worker"
    )
    return Failure("TIMED_OUT", text, "")


def _name_signal(number: int) -> str:
    try:
        found = signal.Signals(number)
    except ValueError:
        return f"signal {number}"
    return found.name + _SIGNALS.get(found, "")
