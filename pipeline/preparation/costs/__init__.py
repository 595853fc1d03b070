"""The costs of a model: limits in every unit, latency as it was measured, and memory."""
