"""Own the graph of flows: which flow depends on which, the state of each flow, and the causes of staleness.

It runs, schedules and configures nothing, and it calls no other service.
"""
