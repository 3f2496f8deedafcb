"""Run instance-service as a process (`python -m instance_service`); its settings come from the environment."""

from instance_service.app import main
from servicekit import runtime

if __name__ == "__main__":
    runtime.run(main)
