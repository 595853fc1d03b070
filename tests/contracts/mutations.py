"""Mutations of a good artifact: `python -m tests.contracts.mutations`, which prints a tally.

Damage leaves the digests as they were: bits flipped, files cut, swapped, gone or replaced, JSON
edited. An edit computes the digests again, and in half of the cases the files that show parts of
the manifest too, as someone would who edits on purpose.
"""

import copy
import json
import os
import random
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import igq
from igq.formats.integrity import file_entry, sealed
from igq.formats.native.record import readable, views
from igq.vit import layers
from tests.tiny import NAME, TINY

Mutate = Callable[[random.Random, Path, Path], str]
"""Changes the first folder, perhaps with files of the second, and says how."""

ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 3, 4, 7, 8, 9, 48, 1025, 10**30, 0.5, -2.5, 1e308, 1e-300),
    *("", "x", "../manifest.json", "/etc/passwd", "own", "fitted", "whole", "tokens", "channels"),
    *("token groups", "key groups", "rows", "heads", "vit_base_patch16_224", "resnet18"),
    *([], {}, [1, 2], [[8, 8]], {"bits": 4}, ["blocks.0.mlp.fc1"], [[[[[]]]]]),
)
FILES = ("manifest.json", "model.safetensors", "allocation.json", "preprocessing.json", "README.md")


def make(folder: Path, seed: int) -> nn.Module:
    """Write the artifact of a tiny model with fitted bounds and with contiguous groups."""
    model = igq.create(NAME, TINY)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator)
    scheme = igq.Scheme(softmax=igq.SoftmaxMethod.UNIT_ROWS)
    ranges = igq.observe(model, torch.randn(4, 1, 8, 8, generator=generator), scheme)
    candidates = igq.fit(ranges, num_groups=(2, 4), bits=4)
    quantized = igq.quantize(model, candidates.select(igq.uniform(candidates.layers, 4)), 3)
    config = {"input_size": [1, 8, 8], "interpolation": "bicubic", "mean": [0.5], "std": [0.5]}
    config |= {"crop_pct": 0.9, "crop_mode": "center"}
    notes = {"preprocessing": {"config": config, "num_classes": 10}, "search_kl": 0.25}
    igq.save(quantized, folder, notes)
    return quantized


def flip(draw: random.Random, folder: Path, other: Path) -> str:
    path = folder / draw.choice(FILES)
    content, at = bytearray(path.read_bytes()), draw.randrange(8 * path.stat().st_size)
    content[at // 8] ^= 1 << at % 8
    path.write_bytes(content)
    return f"bit {at} of {path.name}"


def cut(draw: random.Random, folder: Path, other: Path) -> str:
    path = folder / draw.choice(FILES)
    content = path.read_bytes()
    at = draw.randrange(len(content))
    longer = draw.random() < 0.2
    path.write_bytes(content + content[:at] + b" " if longer else content[:at])
    return f"{path.name} {'with more' if longer else 'cut'} at {at}"


def swap(draw: random.Random, folder: Path, other: Path) -> str:
    source, target = draw.choice(FILES), draw.choice(FILES)
    content = (draw.choice((folder, other)) / source).read_bytes()
    (folder / target).write_bytes(content)
    return f"{source} in place of {target}"


def replace(draw: random.Random, folder: Path, other: Path) -> str:
    path, how = folder / draw.choice(FILES), draw.choice(("gone", "folder", "link", "zeros"))
    size = path.stat().st_size
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "link":
        os.symlink(other / path.name, path)
    elif how == "zeros":
        path.write_bytes(bytes(size))
    return f"{path.name}: {how}"


def damage_json(draw: random.Random, folder: Path, other: Path) -> str:
    names = [name for name in FILES if name.endswith(".json")]
    path = folder / draw.choice(names)
    content = json.loads(path.read_text())
    said = edit(draw, content)
    path.write_text(json.dumps(content))
    return f"{path.name}: {said}"


def edit_json(draw: random.Random, folder: Path, other: Path) -> str:
    manifest = json.loads((folder / "manifest.json").read_text())
    said = edit(draw, manifest)
    if draw.random() < 0.5 and isinstance(manifest.get("files"), dict):
        show_again(folder, manifest)
    if draw.random() < 0.05:
        deep = "[" * 100_000 + "]" * 100_000
        (folder / "manifest.json").write_text(json.dumps(manifest)[:-1] + f', "deep": {deep}}}')
        return "100,000 lists within one another"
    seal(folder, manifest)
    return f"sealed: {said}"


def edit_tensors(draw: random.Random, folder: Path, other: Path) -> str:
    tensors = load_file(folder / "model.safetensors")
    name = draw.choice(sorted(tensors))
    how, change = draw.choice(list(CHANGES.items()))
    change(draw, name, tensors)
    save_file(tensors, folder / "model.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["model.safetensors"] = file_entry(folder / "model.safetensors")
    show_again(folder, manifest)
    seal(folder, manifest)
    return f"sealed: {how} of {name}"


def edit_header(draw: random.Random, folder: Path, other: Path) -> str:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    said = edit(draw, header)
    text = json.dumps(header).encode()
    length = draw.choice((len(text), len(text), 10**12, 2**63, 0))
    path.write_bytes(length.to_bytes(8, "little") + text + content[8 + size :])
    seal(folder, json.loads((folder / "manifest.json").read_text()))
    return f"sealed: header, {length} bytes: {said}"


def edit(draw: random.Random, content: Any) -> str:
    """Change one value somewhere in JSON, in place."""
    holder, key = draw.choice(list(places(content)))
    how = draw.choice(("odd", "odd", "odd", "gone", "twin", "renamed"))
    if how == "odd":
        holder[key] = copy.deepcopy(draw.choice(ODD))
    elif how == "gone":
        del holder[key]
    elif how == "twin":
        source, its = draw.choice(list(places(content)))
        holder[key] = copy.deepcopy(source[its])
    elif isinstance(holder, dict):
        holder[f"{key}s"] = holder.pop(key)
    return f"{key}: {how}"


def places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each value of JSON as its holder and key."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(pairs):
        yield content, key
        if isinstance(value, (dict, list)):
            yield from places(value)


def show_again(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the files that show parts of a manifest, where it still makes any sense."""
    try:
        shown = views(manifest, _layers())
    except Exception:
        return
    for name, content in shown.items():
        (folder / name).write_text(readable(content))


@cache
def _layers() -> tuple[igq.Layer, ...]:
    return layers(igq.create(NAME, TINY))


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Compute the digests again and write the manifest."""
    manifest.pop("digest", None)
    noted = manifest.get("files")
    if isinstance(noted, dict):
        there = {name for name in noted if name in FILES and (folder / name).is_file()}
        manifest["files"] = {
            name: file_entry(folder / name) if name in there else noted[name] for name in noted
        }
    (folder / "manifest.json").write_text(json.dumps(sealed(manifest)))


def _fill(value: float) -> Callable[[random.Random, str, dict[str, Tensor]], None]:
    def change(draw: random.Random, name: str, tensors: dict[str, Tensor]) -> None:
        flat = tensors[name].flatten().clone()
        byte = flat.dtype is torch.uint8
        flat[draw.randrange(len(flat))] = 255 if byte else value
        tensors[name] = flat.view(tensors[name].shape)

    return change


def _type(draw: random.Random, name: str, tensors: dict[str, Tensor]) -> None:
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8)
    tensors[name] = tensors[name].to(draw.choice(kinds))


def _shape(draw: random.Random, name: str, tensors: dict[str, Tensor]) -> None:
    tensor = tensors[name]
    shaped = (tensor.flatten(), tensor[None], tensor[:0], tensor[:1], tensor.flatten()[0])
    tensors[name] = draw.choice(shaped).clone().contiguous()


def _swapped(draw: random.Random, name: str, tensors: dict[str, Tensor]) -> None:
    other = draw.choice(sorted(tensors))
    tensors[name], tensors[other] = tensors[other], tensors[name].clone()


def _gone(draw: random.Random, name: str, tensors: dict[str, Tensor]) -> None:
    tensors[f"{name}s"] = tensors.pop(name)


CHANGES = {
    "NaN": _fill(float("nan")),
    "infinity": _fill(float("-inf")),
    "1e38": _fill(1e38),
    "-1": _fill(-1.0),
    "type": _type,
    "shape": _shape,
    "exchange": _swapped,
    "loss": _gone,
}
DAMAGE: dict[Mutate, int] = {flip: 260, cut: 90, swap: 60, replace: 40, damage_json: 160}
EDITS: dict[Mutate, int] = {edit_json: 240, edit_tensors: 120, edit_header: 60}


def outcome(folder: Path, images: Tensor, logits: Tensor) -> str:
    """Load an artifact and run it: refused, identical, different, or the error."""
    try:
        model = igq.load(folder).model
    except igq.ArtifactError as error:
        said = str(error)
        named = any(f"artifact: {name}: " in said for name in FILES)
        return "refused" if named else f"refused without a file: {said}"
    except Exception as error:
        return f"traceback on loading: {error!r}"
    try:
        with torch.inference_mode():
            found = model(images)
    except Exception as error:
        return f"traceback on running: {error!r}"
    if found.shape != logits.shape:
        return "different"
    return "identical" if torch.equal(found, logits) else "different"


def tally(mutations: dict[Mutate, int], seed: int) -> dict[str, Any]:
    """Return how many mutations ended in which way, and an example of each odd one."""
    counts: dict[str, int] = {}
    odd: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        good, other, mutated = (Path(temporary) / name for name in ("good", "other", "mutated"))
        model = make(good, seed=0)
        make(other, seed=1)
        images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(9))
        with torch.inference_mode():
            logits = model(images)
        for mutate, count in mutations.items():
            for number in range(count):
                shutil.copytree(good, mutated)
                draw = random.Random(f"{mutate.__name__} {number} {seed}")
                said = mutate(draw, mutated, other)
                ended = outcome(mutated, images, logits)
                kind = ended.partition(":")[0]
                counts[kind] = counts.get(kind, 0) + 1
                if kind not in ("refused", "identical"):
                    odd.append(f"{mutate.__name__} {number}: {said} -> {ended}")
                shutil.rmtree(mutated)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"counts": counts, "odd": odd, "peak_mib": peak}


def main() -> None:
    """Print the tally of damage and of edits as JSON."""
    print(json.dumps({"damage": tally(DAMAGE, 0), "edits": tally(EDITS, 0)}, indent=1))


if __name__ == "__main__":
    main()
