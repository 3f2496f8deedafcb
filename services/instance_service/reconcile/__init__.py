"""The loops that make outside systems match the instances; each step compares present states, not events."""
