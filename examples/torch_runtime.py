"""Classify images with an exported model in torch: python torch_runtime.py ARTIFACT IMAGE...

Needs igq-vit alone; ARTIFACT is what `igq export` wrote.
"""

import sys

import torch
from PIL import Image

import igq
from pipeline.data import Preprocessing

folder, *files = sys.argv[1:]
artifact = igq.load(folder)
transform = Preprocessing(**artifact.notes["preprocessing"]).transform()
images = torch.stack([transform(Image.open(file)) for file in files])
deployed = igq.deploy(artifact.model)  # its layers are igq's operators in C++
with torch.inference_mode():
    odds = deployed(images).softmax(-1)
for file, row in zip(files, odds, strict=True):
    best = row.argmax().item()
    print(f"{file}: {best} {row[best]:.3f}")
