"""The moments in the life of a run at which its processes may be killed, and how they say that they are there."""

import os
import socket

PORT = "OPTAIC_TEST_MOMENTS_PORT"
BEFORE_CLAIM = "before the claim"
BEFORE_FORK = "after the claim, before the fork"
BEFORE_START = "after the fork, before StartRun"
AFTER_START = "after StartRun"
COMPUTING = "while computing"
BEFORE_COMPLETION = "before CompleteRun"
AFTER_COMPLETION = "after CompleteRun, before Prefect is told"
MOMENTS = (
    BEFORE_CLAIM,
    BEFORE_FORK,
    BEFORE_START,
    AFTER_START,
    COMPUTING,
    BEFORE_COMPLETION,
    AFTER_COMPLETION,
)
# Of the process that computes.
READING = "while reading an input"
WRITING = "while writing the output"
# Of the worker, with what the run owes MLflow and Evidently.
OWED = "after keeping what is owed"
RUN_CREATED = "after creating MLflow's run"
FIGURES_LOGGED = "after logging params and metrics"
FILES_UPLOADED = "after uploading the files"
VERSION_REGISTERED = "after registering the version"
RUN_ENDED = "after ending MLflow's run"
SNAPSHOT_DRAFTED = "after drafting the snapshot"
SNAPSHOT_WRITTEN = "after writing the snapshot"
SETTLING = "before forgetting what was owed"
# Of the worker, with the run's log.
LINES_SENT = "after sending lines of a log"

_port = os.environ.get(PORT, "")  # now: processes of user code do not keep it


def reach(moment: str) -> None:
    """Say it, and wait; blocking, since nothing else of this process is to go on either."""
    with socket.create_connection(("127.0.0.1", int(_port))) as gate:
        gate.sendall(f"{os.getpid()} {moment}\n".encode())
        gate.recv(1)
