"""Runs the service: `python -m run_service`."""

from run_service.app import main
from servicekit import runtime

if __name__ == "__main__":
    runtime.run(main)
