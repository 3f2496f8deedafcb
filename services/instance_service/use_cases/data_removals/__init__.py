"""List the data of deleted instances that still exists, and give workers the task of removing it."""
