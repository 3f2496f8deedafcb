"""The embedded MLflow server on our PostgreSQL: experiments, metrics and the registry of models."""

import functools

from devstack import checks, logins, ports
from devstack.processes import Program
from devstack.state import State

_HEALTH = "/health"
# Its tables are made before it answers: two first calls at once would make them twice, and wait for each other for ever.
_MAKE_STORES = "mlflow.server.handlers:initialize_backend_stores"


def make_program(state: State, port: int, database_url: str, login: str) -> Program:
    """Describe how to run the server behind its login: by its application, because the command line takes twice the time and memory.

    The names with an underscore are how that command line tells the application; the lock pins MLflow's version.
    """
    home = state.root / "mlflow"
    artifacts = home / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    return Program(
        name="mlflow",
        argv=logins.make_argv("mlflow.server.fastapi_app:app", port, _HEALTH, prepare=_MAKE_STORES),
        environment={
            **logins.make_environment(login),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "_MLFLOW_SERVER_FILE_STORE": database_url,
            "_MLFLOW_SERVER_REGISTRY_STORE": database_url,
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": artifacts.as_uri(),
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        },
        ready=functools.partial(checks.http_answers, f"{ports.HOST}:{port}", _HEALTH),
        find_problem=functools.partial(checks.find_http_problem, f"{ports.HOST}:{port}", _HEALTH),
    )
