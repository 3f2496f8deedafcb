"""The data of instances that are gone: what is still there, and the work of removing it."""
