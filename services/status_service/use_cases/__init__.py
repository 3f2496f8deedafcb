"""One function for each call and each event, with its own transaction; it owns the order of locks and writes."""
