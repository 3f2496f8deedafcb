"""Keep definitions and instances in files: read documents, plan the changes, apply them."""
