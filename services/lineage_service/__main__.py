"""Runs the service as a process."""

from lineage_service.app import main
from servicekit import runtime

if __name__ == "__main__":
    runtime.run(main)
