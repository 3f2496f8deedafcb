"""Runs status-service as a process; nothing else."""

from servicekit import runtime
from status_service.app import main

runtime.run(main)
