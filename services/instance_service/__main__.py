"""The entry point of the process instance-service: `python -m instance_service`."""

from instance_service.app import main
from servicekit import runtime

if __name__ == "__main__":
    runtime.run(main)
