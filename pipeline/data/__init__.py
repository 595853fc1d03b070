"""Images: found by timm's dataset factory, preprocessed as the model wants, drawn disjointly."""

from pipeline.data.draw import draw, drawn_counts, load_all
from pipeline.data.images import Images
from pipeline.data.preprocessing import Preprocessing
from pipeline.data.sources import ImageSource, class_names, open_source
from pipeline.data.stream import Block, Fingerprint, Stream, regrouped
from pipeline.paths import DIGITS

__all__ = [
    "DIGITS",
    "Block",
    "Fingerprint",
    "ImageSource",
    "Images",
    "Preprocessing",
    "Stream",
    "class_names",
    "draw",
    "drawn_counts",
    "load_all",
    "open_source",
    "regrouped",
]
