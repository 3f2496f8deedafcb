"""Run run-service as a process (`python -m run_service`); its settings come from the environment."""

from run_service.app import main
from servicekit import runtime

if __name__ == "__main__":
    runtime.run(main)
