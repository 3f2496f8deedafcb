"""OptAIC for Python: the client, the plugin base classes and the command line; holds no service logic."""
