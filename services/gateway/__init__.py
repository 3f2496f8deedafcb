"""The gateway: the public methods of all services over HTTP, for browsers, curl and clients without gRPC; it owns no table."""
