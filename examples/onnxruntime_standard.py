"""Classify an image with an exported model: python onnxruntime_standard.py FOLDER IMAGE.

Needs onnxruntime, numpy and pillow alone; FOLDER is what the format onnx wrote.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

folder, file = Path(sys.argv[1]), sys.argv[2]
config = json.loads((folder / "preprocessing.json").read_text())["config"]
channels, height, width = config["input_size"]
image = Image.open(file).convert("L" if channels == 1 else "RGB")
short = math.floor(height / config["crop_pct"])  # the other side is rounded down
filter = Image.Resampling[config["interpolation"].upper()]
sides = [length * short // min(image.size) for length in image.size]
image = image.resize(sides, filter)
left, top = round((image.width - width) / 2), round((image.height - height) / 2)
pixels = np.asarray(image.crop((left, top, left + width, top + height)), np.float32) / 255
pixels = (pixels.reshape(height, width, channels) - config["mean"]) / config["std"]
images = pixels.transpose(2, 0, 1)[None].astype(np.float32)

session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
(logits,) = session.run(["logits"], {"images": images})
odds = np.exp(logits[0] - logits[0].max())
for place in odds.argsort()[::-1][:5]:
    print(f"{place} {odds[place] / odds.sum():.3f}")
