"""The embedded default: the whole control plane on one machine, from wheels. Never used in production."""

from devstack.config import Settings
from devstack.endpoints import Endpoints
from devstack.processes import StartError
from devstack.report import describe
from devstack.stack import Stack
from devstack.state import StackInUseError, State
from devstack.supervisor import down, run, status, up

__all__ = [
    "Endpoints",
    "Settings",
    "Stack",
    "StackInUseError",
    "StartError",
    "State",
    "describe",
    "down",
    "run",
    "status",
    "up",
]
