"""Leave the environment that holds the settings, then run the application."""

from servicekit import runtime
from worker import app, environment

if __name__ == "__main__":
    environment.leave()
    runtime.run(app.main)
