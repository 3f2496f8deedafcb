"""Run lineage-service as a process (`python -m lineage_service`); its settings come from the environment."""

from lineage_service.app import main
from servicekit import runtime

if __name__ == "__main__":
    runtime.run(main)
