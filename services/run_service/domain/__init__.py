"""The rules of runs; pure, they know neither storage nor transport nor the time of day."""
