"""timm's vision transformers: the only part of igq that knows how they are built."""

from igq.vit.acceleration import EAGER, Execution, accelerate, fastest
from igq.vit.catalogue import supported_models, why_unsupported
from igq.vit.checkpoints import (
    Architecture,
    architecture,
    create,
    create_pretrained,
    load_weights,
    remake,
)
from igq.vit.structure import layers, stage_of, stages
from igq.vit.swap import (
    assemble,
    quantize,
    quantize_weights,
    quantized_weights,
    quantizers,
    rotated,
    set_quantizers,
    set_weights,
    with_rotated,
    with_slots,
)

__all__ = [
    "EAGER",
    "Architecture",
    "Execution",
    "accelerate",
    "architecture",
    "assemble",
    "create",
    "create_pretrained",
    "fastest",
    "layers",
    "load_weights",
    "quantize",
    "quantize_weights",
    "quantized_weights",
    "quantizers",
    "remake",
    "rotated",
    "set_quantizers",
    "set_weights",
    "stage_of",
    "stages",
    "supported_models",
    "why_unsupported",
    "with_rotated",
    "with_slots",
]
