"""Classify images with an MLflow model: python mlflow_model.py MODEL IMAGE...

Needs the packages of MODEL/requirements.txt; MODEL is what `igq package` wrote.
"""

import sys
from pathlib import Path

import mlflow
import pandas as pd

folder, *files = sys.argv[1:]
model = mlflow.pyfunc.load_model(folder)
images = pd.DataFrame({"image": [Path(file).read_bytes() for file in files]})
for file, row in zip(files, model.predict(images).itertuples(), strict=True):
    print(f"{file}: {row.name} ({row.label}) {row.probability:.3f}")
