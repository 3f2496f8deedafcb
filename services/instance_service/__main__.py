"""Runs instance-service as a process; everything it needs comes from the environment."""

from instance_service.app import main
from servicekit.runtime import run

if __name__ == "__main__":
    run(main)
