"""Owns what depends on what: flow state, edges, consumed versions and the causes of staleness.

It never computes, schedules or configures anything, and it calls no other service.
"""
