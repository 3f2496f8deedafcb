"""The rules of statuses; pure, they know neither storage nor transport nor the time of day."""
