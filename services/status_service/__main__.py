"""Run status-service as a process (`python -m status_service`); its settings come from the environment."""

from servicekit import runtime
from status_service.app import main

if __name__ == "__main__":
    runtime.run(main)
