"""The process of lineage-service: `python -m lineage_service` starts it with settings from the environment."""

from lineage_service.app import main
from servicekit import runtime

if __name__ == "__main__":
    runtime.run(main)
