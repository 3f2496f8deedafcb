"""Owns what state each instance is in, and why: the read model, its history and the watch.

It never decides whether a flow is fresh (lineage-service does) and never changes an instance.
"""
