"""Runs app, once the environment is as Prefect must find it."""

import os

from servicekit import runtime
from worker.config import Settings

if __name__ == "__main__":
    os.environ.update(Settings().prefect_environment)
    from worker import app  # imports Prefect

    runtime.run(app.main)
