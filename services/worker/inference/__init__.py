"""The pure part of an inference: which model predicts which dates, and what of the earlier predictions stays; no I/O."""
