"""The training of a model as pure functions: tables in, a fitted model, tables and numbers out."""

from worker.training.procedure import Trained, train
from worker.training.rows import Rows, build_rows, keep_labelled
from worker.training.settings import TrainingSettings

__all__ = ["Rows", "Trained", "TrainingSettings", "build_rows", "keep_labelled", "train"]
