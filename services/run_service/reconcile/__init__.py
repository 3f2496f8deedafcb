"""Level-triggered loops: they look at what is, not at what was announced; one per concern, all replicas share."""
