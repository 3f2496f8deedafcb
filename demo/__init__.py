"""The main job on real prices, through the public API only; imports no service."""
