"""Grant and revoke roles, and read who has which."""
