"""The moments in the life of a run at which a worker's process may be killed, and how it says that it is there."""

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


def reach(moment: str) -> None:
    """Say it, and wait; blocking, since nothing else of this process is to go on either."""
    with socket.create_connection(("127.0.0.1", int(os.environ[PORT]))) as gate:
        gate.sendall(f"{os.getpid()} {moment}\n".encode())
        gate.recv(1)
