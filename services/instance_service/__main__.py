"""Runs instance-service as a process: `python -m instance_service`. Everything it needs comes from the deps."""

from instance_service.app import main
from servicekit import runtime

if __name__ == "__main__":
    runtime.run(main)
