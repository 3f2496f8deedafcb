"""The worker's program with `support.worker_moments` in each of its processes."""

from servicekit import runtime
from worker import app, environment, preload

if __name__ == "__main__":
    environment.leave()
    preload.PRELOAD += ("support.worker_moments",)  # type: ignore[assignment]  # its length is not part of what it is
    import support.worker_moments  # noqa: F401 - for what it does to the executor

    runtime.run(app.main)
