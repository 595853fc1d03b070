"""Classify an image with a program of torch.export: python torch_program.py FOLDER IMAGE.

Needs torch, pillow and igq-vit without what it depends on (pip install --no-deps); FOLDER is what
the format pt2 wrote. A program can run any code: take those of strangers to igq's `read_pt2`.
"""

import hashlib
import json
import math
import sys
from pathlib import Path

import torch
from PIL import Image

import igq.runtime.operators  # noqa: F401  # defines the operators that the program calls

folder, file = Path(sys.argv[1]), sys.argv[2]
config = json.loads((folder / "preprocessing.json").read_text())["config"]
channels, height, width = config["input_size"]
image = Image.open(file).convert("L" if channels == 1 else "RGB")
short = math.floor(height / config["crop_pct"])  # the other side is rounded down
sides = [length * short // min(image.size) for length in image.size]
image = image.resize(sides, Image.Resampling[config["interpolation"].upper()])
left, top = round((image.width - width) / 2), round((image.height - height) / 2)
pixels = bytearray(image.crop((left, top, left + width, top + height)).tobytes())
images = torch.frombuffer(pixels, dtype=torch.uint8).view(1, height, width, channels) / 255
images = ((images - torch.tensor(config["mean"])) / torch.tensor(config["std"])).movedim(-1, 1)

noted = json.loads((folder / "manifest.json").read_text())["files"]["model.pt2"]["sha256"]
assert hashlib.sha256((folder / "model.pt2").read_bytes()).hexdigest() == noted
model = torch.export.load(folder / "model.pt2").module()
odds, places = model(images).softmax(-1)[0].topk(5)
for place, share in zip(places.tolist(), odds.tolist(), strict=True):
    print(f"{place} {share:.3f}")
