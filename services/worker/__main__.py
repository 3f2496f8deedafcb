"""Set the environment as the libraries need it, then run the application."""

import os

from servicekit import runtime
from worker import app
from worker.config import Settings

if __name__ == "__main__":
    os.environ.update(Settings().environment)
    runtime.run(app.main)
