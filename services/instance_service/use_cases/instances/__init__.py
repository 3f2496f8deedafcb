"""Change, pause, delete and read instances, and record what the reconciler found."""
