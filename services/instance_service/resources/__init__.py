"""Complete, check and describe a resource inside a transaction that a use case has opened."""
