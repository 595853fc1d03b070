"""The measurements behind README and docs; each prints a table and names its machine.

`--model digits`, the demo's model, needs nothing but the project: tests run every benchmark so.
"""
