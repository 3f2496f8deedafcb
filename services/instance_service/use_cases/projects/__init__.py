"""Projects: their changes, and what is read of them."""
