"""Makes a golden artifact: `python tests/golden/make_artifact.py`, once for each schema.

It writes `artifact_schema_<n>/` beside itself: the artifact of a tiny quantized model, and
`expected.safetensors` with images and the model's logits. It refuses to write over one that is
there: a released schema's artifact is kept as it was, so that tests find out when it no longer
loads.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

import igq
from igq.formats.native import SCHEMA
from tests import tiny

ARGUMENTS = tiny.TINY


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    model = igq.create("vit_tiny_patch16_224", ARGUMENTS)
    for parameter in model.parameters():
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator)
    images = torch.randn(4, 1, 8, 8, generator=generator)

    candidates = igq.fit(igq.observe(model, images), num_groups=(1, 2, 4), bits=4)
    names = [layer.name for layer in igq.grouped(candidates.layers)]
    allocation = igq.Allocation.of({name: (1, 2, 4)[i % 3] for i, name in enumerate(names)})
    quantized = igq.quantize(model, candidates.select(allocation), weight_bits=4)

    folder = Path(__file__).resolve().parent / f"artifact_schema_{SCHEMA}"
    igq.save(quantized, folder, notes={"made_by": "tests/golden/make_artifact.py"})
    with torch.inference_mode():
        expected = {"images": images, "logits": quantized(images)}
    save_file(expected, folder / "expected.safetensors")


if __name__ == "__main__":
    main()
