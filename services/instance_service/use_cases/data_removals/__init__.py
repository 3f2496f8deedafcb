"""List the data of deleted instances that still exists, and hand out the work of removing it."""
