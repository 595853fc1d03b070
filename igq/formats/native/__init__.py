"""The format that igq reads back: a folder of tensors and JSON, in which nothing is code.

`manifest.json` decides, `model.safetensors` holds the tensors, and the other files show parts of
the manifest to people and other programs; all of them must agree.
"""

from igq.formats.native.manifest import SCHEMA
from igq.formats.native.reading import Artifact, Verified, load, verify
from igq.formats.native.record import read_allocation
from igq.formats.native.writing import save

__all__ = ["SCHEMA", "Artifact", "Verified", "load", "read_allocation", "save", "verify"]
