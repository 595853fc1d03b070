"""Images: found by timm's dataset factory, preprocessed as the model wants, drawn disjointly."""

from pipeline.data.draw import draw, load_all
from pipeline.data.images import Images
from pipeline.data.preprocessing import Preprocessing
from pipeline.data.sources import DIGITS, ImageSource, class_names, open_source
from pipeline.data.stream import Block, Fingerprint, Stream, regrouped

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
    "load_all",
    "open_source",
    "regrouped",
]
