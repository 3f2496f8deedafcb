"""The embedded MLflow server on our PostgreSQL: experiments, metrics and the registry of models."""

import functools
import sys

from devstack import checks, ports
from devstack.processes import Program
from devstack.state import State


def make_program(state: State, port: int, database_url: str) -> Program:
    """Describe how to run the server: by its application, because the command line takes twice the time and memory.

    The names with an underscore are how that command line tells the application; the lock pins MLflow's version.
    """
    home = state.root / "mlflow"
    artifacts = home / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    return Program(
        name="mlflow",
        argv=(
            *(sys.executable, "-m", "uvicorn", "mlflow.server.fastapi_app:app"),
            *("--host", ports.HOST, "--port", str(port), "--log-level", "warning"),
            *("--timeout-keep-alive", "5", "--timeout-graceful-shutdown", "3"),
        ),
        environment={
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "_MLFLOW_SERVER_FILE_STORE": database_url,
            "_MLFLOW_SERVER_REGISTRY_STORE": database_url,
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": artifacts.as_uri(),
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        },
        ready=functools.partial(checks.http_answers, f"{ports.HOST}:{port}", "/health"),
        find_problem=functools.partial(checks.find_http_problem, f"{ports.HOST}:{port}", "/health"),
    )
