"""Own the status of each instance and its reason: the read model, its history and the watch.

It never decides whether a flow is fresh (lineage-service does) and never changes an instance.
"""
