"""README.md of an artifact: what the model is, what is known of it, how to run it, its limits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_SCORES = {"kl": "KL to the full-precision model", "top1": "top-1 accuracy"}
_LIMITS = """\
## Limits

- `igq.load` fake-quantizes: it computes in floating point the values that a quantized kernel would.
  That shows accuracy and is not faster than the original; `igq.deploy` computes with integers. The
  two round alike layer by layer; single images may get another class, scores over many are alike.
- Scores hold for the images that they were measured on, and images prepared in the same way.
- Digests find damage and swapped files. They do not say who wrote them.
"""


def card(record: Mapping[str, Any], notes: Mapping[str, Any]) -> str:
    """Return the model card of an artifact, in Markdown."""
    parts = (
        f"# {_title(record)}\n",
        _facts(record),
        _evidence(record.get("scores")),
        _run(notes),
        _LIMITS,
    )
    return "\n".join(part for part in parts if part)


def _title(record: Mapping[str, Any]) -> str:
    return f"{record['model']['name']}, quantized with instance-aware groups"


def _facts(record: Mapping[str, Any]) -> str:
    settings = Counter(layer["setting"] for layer in record["layers"])
    counted = ", ".join(f"{count} x {name}" for name, count in sorted(settings.items()))
    scheme = ", ".join(f"{key} {value}" for key, value in record["scheme"].items() if value)
    facts = {
        "Layers by setting (weight bits, activation bits, groups)": counted,
        "Scheme": scheme,
        **_named("Cost", record.get("totals")),
        **_named("Limit", record.get("limits")),
        "Weights (hash of the original)": record["model"].get("weights"),
        "Calibrated on": _line(record.get("calibration")),
        "Study": _line(record.get("study")),
        "MLflow run": _line(record.get("mlflow_run")),
        "Written with": _line(record["versions"]),
    }
    lines = [f"- {name}: {value}" for name, value in facts.items() if value]
    return "\n".join((*lines, "", "Each layer stands in `allocation.json`.", ""))


def _evidence(scores: Any) -> str:
    """Return the scores as a table; no claim is made where none were noted."""
    if not isinstance(scores, dict) or not isinstance(scores.get("validation"), dict):
        return "## Evidence\n\nNo scores on unseen images were noted.\n"
    found = scores["validation"]
    rows = [
        f"| {words} | {_number(found[name])} | {_interval(found.get(f'{name}_interval'))} |"
        for name, words in _SCORES.items()
        if found.get(name) is not None
    ]
    images = f"{found.get('images')} images of {found.get('source')}"
    table = ["| | mean | 95 % interval over images |", "|---|---|---|", *rows]
    reference = found.get("reference_top1")
    against = "" if reference is None else f"The original has {_number(reference)} top-1.\n"
    head = f"## Evidence\n\nOn {images} that the search did not see:\n"
    return "\n".join((head, *table, "", against))


def _run(notes: Mapping[str, Any]) -> str:
    code = ["import igq", "", "artifact = igq.load(FOLDER)"]
    how = ""
    if notes.get("preprocessing"):
        how = "`pipeline` comes with igq; without it `preprocessing.json` says what `images` are."
        code[1:1] = ["from PIL import Image", "from pipeline.data import Preprocessing"]
        code += [
            'transform = Preprocessing(**artifact.notes["preprocessing"]).transform()',
            'images = transform(Image.open("cat.jpg")).unsqueeze(0)',
        ]
    code += ["logits = artifact.model(images)"]
    code += ["fast = igq.deploy(artifact.model)  # igq's runtime, for plain ViTs on x86"]
    shell = "igq run FOLDER cat.jpg\nigq verify FOLDER\nigq evaluate FOLDER --images DIR"
    return "\n".join(
        ("## Run", "", "```python", *code, "```", "", "```sh", shell, "```", "", how, "")
    )


def _named(word: str, values: Any) -> dict[str, str]:
    if not isinstance(values, dict):
        return {}
    return {f"{word} ({unit})": _number(value) for unit, value in values.items() if value}


def _line(value: Any) -> str | None:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items() if inner is not None)
    return None if value is None else str(value)


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, (int, float)) else str(value)


def _interval(ends: Any) -> str:
    if not isinstance(ends, Sequence) or isinstance(ends, str) or len(ends) != 2:
        return ""
    return f"{_number(ends[0])} to {_number(ends[1])}"
