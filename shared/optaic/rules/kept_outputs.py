"""The flows that keep their output in a dataset which no definition describes, and the built-in code that keeps and reads it."""

from __future__ import annotations

KEPT_FLOWS = ("optimize", "preview", "inference")
KEPT_BY = "worker.builtin.delta_store:DeltaStore"
READ_BY = "worker.builtin.simple_accessor:SimpleAccessor"
