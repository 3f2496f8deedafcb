"""Run the loops that compare the actual state with the desired one; all replicas share their work."""
