"""Run the loops that compare what is with what should be; all replicas share their work."""
