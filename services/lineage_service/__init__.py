"""The lineage service: it stores which flow depends on which, the state of each flow, and the causes of staleness.

It does not run, schedule or configure anything, and it calls no other service.
"""
