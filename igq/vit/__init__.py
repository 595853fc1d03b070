"""timm's vision transformers: the only part of igq that knows how they are built."""

from igq.vit.catalogue import supported_models, why_unsupported
from igq.vit.checkpoints import (
    Architecture,
    architecture,
    create,
    create_pretrained,
    load_weights,
    remake,
)
from igq.vit.structure import layers, stage_of, stages, supported

__all__ = [
    "Architecture",
    "architecture",
    "create",
    "create_pretrained",
    "layers",
    "load_weights",
    "remake",
    "stage_of",
    "stages",
    "supported",
    "supported_models",
    "why_unsupported",
]
