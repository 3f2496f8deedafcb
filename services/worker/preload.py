"""The modules that the process has loaded from which children are forked; among them is none that speaks to a service."""

# What a run needs, so that a child starts with it. Modules only: data or connections must not be shared by forks.
PRELOAD = (
    "worker.guardians",
    "worker.child",
    "worker.builtin.delta_store",
    "worker.builtin.derivation",
    "worker.builtin.prices",
    "worker.builtin.simple_accessor",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.pandas_compat",
    "pyarrow.parquet",
    "scipy.stats",
    "skfolio.datasets",
    "worker.builtin.ml_modules",
    "worker.computing.training",
    "mlflow.sklearn",
    "worker.loaded_code",
    "worker.large_pages",  # the last: what is imported later lies in small ones
)
