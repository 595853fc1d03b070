"""Classify an image on igq's operators in onnxruntime: python onnxruntime_igq.py FOLDER IMAGE.

Needs onnxruntime, numpy, pillow and igq-vit without what it depends on (pip install --no-deps);
FOLDER is what the format onnx-igq wrote.
"""

import json
import math
import sys
from importlib.resources import files
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

library = next(Path(str(files("igq"))).glob("runtime/*igq_runtime.*"))
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(str(library))
session = onnxruntime.InferenceSession(folder / "model.onnx", options)
(logits,) = session.run(["logits"], {"images": images})
odds = np.exp(logits[0] - logits[0].max())
for place in odds.argsort()[::-1][:5]:
    print(f"{place} {odds[place] / odds.sum():.3f}")
