"""Run gateway as a process (`python -m gateway`); its settings come from the environment."""

from gateway.app import main
from servicekit import runtime

if __name__ == "__main__":
    runtime.run(main)
