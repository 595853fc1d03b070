"""Searching: the driver of trials, rivals, the final round, and the result."""
