"""Hostile requests by the thousand, and the four services that must withstand them."""
