"""Families of vision transformers: one file for each way of building them.

To add a family, write a file with a subclass of `Family` and list it here.
"""

from igq.vit.families.base import Family, Stage, either
from igq.vit.families.beit import Beit
from igq.vit.families.eva import Eva
from igq.vit.families.plain import Plain
from igq.vit.families.swin import Swin

FAMILIES: tuple[Family, ...] = (Plain(), Swin(), Beit(), Eva())
"""Each way of building a vision transformer that is supported."""

__all__ = ["FAMILIES", "Family", "Stage", "either"]
