"""Own runs, their timelines and their dispatch to Prefect.

It computes nothing and never decides what is fresh.
"""
