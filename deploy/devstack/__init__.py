"""The embedded default: the whole control plane on one machine, from wheels. Never used in production."""

from devstack.config import Settings
from devstack.endpoints import Endpoints, NoStackError
from devstack.processes import StartError
from devstack.report import describe, describe_logins
from devstack.stack import Stack
from devstack.state import StackInUseError, State
from devstack.supervisor import down, run, status, up

__all__ = [
    "Endpoints",
    "NoStackError",
    "Settings",
    "Stack",
    "StackInUseError",
    "StartError",
    "State",
    "describe",
    "describe_logins",
    "down",
    "run",
    "status",
    "up",
]
