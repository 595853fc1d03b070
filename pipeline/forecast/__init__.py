"""Forecasts: the passes, time, memory and disk of a search, before it starts."""
