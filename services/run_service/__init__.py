"""Own the runs, their timelines and their dispatch to Prefect; compute nothing and decide no freshness."""
