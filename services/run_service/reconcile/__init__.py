"""The loops that compare the actual state of runs with the desired one; all replicas share their work."""
