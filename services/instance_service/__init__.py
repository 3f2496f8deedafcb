"""Own projects, definitions, instances and their flows, and keep each flow paired with a Prefect deployment.

It never decides what is stale and never starts a run.
"""
