"""Where the weights' bits hurt: one part of the model at 8 bits, all else as it is.

python -m benchmarks.weight_bits --model vit_tiny_patch16_224
"""

from collections.abc import Callable

from benchmarks.real import arguments, bench, machine, uniform_quantizers
from igq.vit import assemble, quantize_weights

BLOCKS_TOGETHER = 3


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", images=256)
    given = bench(options)
    selected = uniform_quantizers(given, options)
    few, many = (quantize_weights(given.model, bits) for bits in (options.bits, 8))
    print(f"{options.model}, W{options.bits}A{options.bits}, {options.images} images; {machine()}")
    print("| weights at 8 bits | KL | top-1 kept |\n|---|---|---|")

    def show(name: str, spared: Callable[[str], bool]) -> None:
        weights = {layer: (many if spared(layer) else few)[layer] for layer in few}
        print(given.row(name, assemble(given.model, selected, weights)), flush=True)

    show("none", lambda layer: False)
    for part in ("head", "patch_embed", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
        show(part, lambda layer, part=part: part in layer)  # type: ignore[misc]
    depth = 1 + max(int(layer.split(".")[1]) for layer in few if layer.startswith("blocks."))
    for first in range(0, depth, BLOCKS_TOGETHER):
        blocks = tuple(f"blocks.{i}." for i in range(first, first + BLOCKS_TOGETHER))
        name = f"blocks {first} to {first + BLOCKS_TOGETHER - 1}"
        show(name, lambda layer, blocks=blocks: layer.startswith(blocks))  # type: ignore[misc]
    show("all", lambda layer: True)


if __name__ == "__main__":
    main()
