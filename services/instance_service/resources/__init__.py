"""What completes, checks and describes a resource, in a transaction that a use case has opened."""
