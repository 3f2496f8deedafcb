"""The kinds of instance, the kinds of definition that each uses, and the flows that it may have; all in lower case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

COMPONENT_KINDS = ("pipeline", "store", "accessor")  # created and deleted together with a dataset or signal
COMPOSED_KINDS = ("dataset", "signal")  # composed of components
DEFINED_KINDS = ("experiment", "model", "portfolio_optimizer")  # these name a definition directly
OWN_KINDS = (*COMPOSED_KINDS, *DEFINED_KINDS, "backtest")  # a user creates these by name
# The kinds of definition that an instance or component of a kind may name, the likelier one first.
DEFINITION_KINDS: Mapping[str, Sequence[str]] = {
    "pipeline": ("pipeline",),
    "store": ("store",),
    "accessor": ("accessor",),
    "experiment": ("op", "op_macro"),
    "model": ("ml_module",),
    "portfolio_optimizer": ("portfolio_optimizer",),
}
# All flows that an instance of a kind may have; a composed kind has the one in ASKED_FOR where it asks for it.
FLOWS: Mapping[str, Sequence[str]] = {
    "dataset": ("refresh", "monitoring"),
    "signal": ("refresh", "monitoring"),
    "experiment": ("preview",),
    "model": ("training", "inference", "monitoring"),
    "portfolio_optimizer": ("optimize",),
    "backtest": ("backtest",),
}
# The flow whose output dependants read, and which a freshness policy judges; nothing can read a backtest.
OUTPUT_FLOWS: Mapping[str, str] = {
    "dataset": "refresh",
    "signal": "refresh",
    "experiment": "preview",
    "model": "inference",
    "portfolio_optimizer": "optimize",
}
# The flow that a schedule starts, and that may follow its upstream flows by itself.
SCHEDULED_FLOWS: Mapping[str, str] = {**OUTPUT_FLOWS, "backtest": "backtest"}
MONITORING = "monitoring"
ASKED_FOR = MONITORING
DEFAULT_COMPONENTS: Mapping[str, str] = {"store": "delta", "accessor": "simple"}  # if a dataset names none
MAX_DELETED_SHARE = 0.5  # of a dataset that is created without one
TIMEZONE = "UTC"  # of a dataset that names none; saying it changes nothing


def is_asked_for(instance_kind: str, flow_kind: str) -> bool:
    """Return whether an instance has a flow only if its settings ask for it; these settings affect no other flow."""
    return flow_kind == ASKED_FOR and instance_kind in COMPOSED_KINDS
