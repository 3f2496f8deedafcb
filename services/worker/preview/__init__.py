"""Preview an operator or a macro on its inputs: pure, from tables to a table and figures. docs/runs.md has every figure."""

from worker.preview.call import Call, Slot, write_call
from worker.preview.evaluation import Library
from worker.preview.result import Preview, run

__all__ = ["Call", "Library", "Preview", "Slot", "run", "write_call"]
