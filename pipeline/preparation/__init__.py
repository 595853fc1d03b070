"""Preparation: a study opened, and the parts that all its trials share."""
