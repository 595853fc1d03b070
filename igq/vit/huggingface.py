"""Names of Hugging Face's ViT, DeiT and DINOv2, as timm has them."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from igq.errors import WeightsError

_MARK = "embeddings.patch_embeddings.projection.weight"
_RENAMED = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.register_tokens$", "register_tokens"),
    (r"^embeddings\.mask_token$", "mask_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"^encoder\.layer\.(\d+)\.(layernorm_before|norm1)\.", r"blocks.\1.norm1."),
    (r"^encoder\.layer\.(\d+)\.(layernorm_after|norm2)\.", r"blocks.\1.norm2."),
    (r"^encoder\.layer\.(\d+)\.(intermediate\.dense|mlp\.fc1)\.", r"blocks.\1.mlp.fc1."),
    (r"^encoder\.layer\.(\d+)\.(output\.dense|mlp\.fc2)\.", r"blocks.\1.mlp.fc2."),
    (r"^encoder\.layer\.(\d+)\.mlp\.weights_in\.", r"blocks.\1.mlp.w12."),
    (r"^encoder\.layer\.(\d+)\.mlp\.weights_out\.", r"blocks.\1.mlp.w3."),
    (r"^encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
    (r"^layernorm\.", "norm."),
    (r"^(classifier|cls_classifier)\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
)
_QKV = re.compile(
    r"^encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)$"
)
_LEFT_OUT = re.compile(r"^(pooler|decoder)\.")


def is_hugging_face(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether names are those of a vision transformer of Hugging Face's."""
    return any(name.endswith(_MARK) for name in tensors)


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a ViT, DeiT or DINOv2 of Hugging Face's under timm's names.

    Query, key and value become one tensor.

    Raises:
        WeightsError: it is another model of theirs.
    """
    prefix = next(name for name in tensors if name.endswith(_MARK)).removesuffix(_MARK)
    operands: dict[str, dict[str, Tensor]] = {}
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = name.removeprefix(prefix)
        if match := _QKV.match(plain):
            block, operand, kind = match.groups()
            operands.setdefault(f"blocks.{block}.attn.qkv.{kind}", {})[operand] = tensor
        elif not _LEFT_OUT.match(plain):
            found[_name(name, plain)] = tensor
    for name, parts in operands.items():
        if parts.keys() != {"query", "key", "value"}:
            raise WeightsError(
                f"query, key and value of each block must be there, but {name} has "
                f"{', '.join(sorted(parts))} alone."
            )
        found[name] = torch.cat([parts["query"], parts["key"], parts["value"]])
    return found


def _name(name: str, plain: str) -> str:
    for pattern, replacement in _RENAMED:
        changed, times = re.subn(pattern, replacement, plain)
        if times:
            return changed
    raise WeightsError(
        "a model of Hugging Face must be a ViT, DeiT or DINOv2 for its names to be translated, "
        f"but this one has {name}; take timm's weights of it."
    )
