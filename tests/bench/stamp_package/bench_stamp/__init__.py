"""A package of plugins for the benchmark `start`."""
