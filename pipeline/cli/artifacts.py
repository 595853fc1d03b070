"""The commands of exported models, from `igq export` on."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from igq.errors import InvalidArgumentError
from igq.formats.base import FORMATS, formats_in
from pipeline.cli.options import (
    AsJson,
    CheckpointKey,
    Classes,
    EngineChoice,
    console,
    loading,
    print_json,
    progress,
)
from pipeline.files import read_json
from pipeline.paths import check_artifact, check_new, check_source, check_weights_file
from pipeline.study.folder import Folder
from pipeline.study.request import Engine
from search_spaces import parse_budget


def export(
    study: Annotated[Path, typer.Argument(help="Folder of a study.")],
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist yet.")],
    weights: Annotated[
        Path | None, typer.Option(help="The same weights, where the file was moved.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="uniform:6, bops:2.1e10, overhead:3%, latency:14ms. [default: the space's]"
        ),
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            help="Format; several, each a folder in --out, by commas or by more --format. "
            "[default: native]",
            autocompletion=lambda: [*FORMATS],
        ),
    ] = None,
    trial: Annotated[
        int | None, typer.Option(min=0, help="Number of a trial. [default: the best]")
    ] = None,
    register: Annotated[
        str | None, typer.Option(help="Name in MLflow's registry to add the model to.")
    ] = None,
    tracking: Annotated[
        str | None, typer.Option(help="MLflow URI of --register. [default: the study's]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the best allocation of a study as a quantized model."""
    most = None if budget is None else parse_budget(budget)
    formats = formats_in(",".join(format or ["native"]))
    check_new(out)
    read_json(Folder(study).study)
    check_weights_file(weights)
    loading("torch", "timm", "optuna")
    from pipeline.commands.artifacts.export import export as run

    if register is not None:
        _check_register(study, register, formats, tracking)
    exported = run(study, out, weights, most, ",".join(formats), trial)
    if not Folder(study).result.exists():
        progress.print(
            f"WARNING: {study} has not ended: no final round chose this trial, and no unseen image "
            "was looked at. igq search --resume goes on with it.",
            soft_wrap=True,
            highlight=False,
        )
    if as_json:
        print_json(exported.json())
        return
    proposal, final_kl = exported.trial.proposal, exported.notes["final_kl"]
    won = "" if final_kl is None else f", {final_kl:.4f} in the final round"
    console.print(
        f"Wrote trial {exported.trial.number} of {study} ({proposal.price}, KL "
        f"{exported.trial.kl:.4f} on search images{won}) to {exported.path}.\n"
        f"Next: {_after(exported.path, formats)}",
        soft_wrap=True,
    )
    if register is not None:
        native = exported.path / "native" if len(formats) > 1 else exported.path
        _register(study, native, register, tracking, weights)


def _check_register(study: Path, name: str, formats: Sequence[str], tracking: str | None) -> None:
    """Refuse what cannot be registered, before anything is written."""
    from pipeline.commands.artifacts.register import check_registry

    if "native" not in formats:
        raise InvalidArgumentError(
            f"`format` must have native in it for --register, but got {','.join(formats)}."
        )
    check_registry(study, name, tracking=tracking)


def _register(
    study: Path, artifact: Path, name: str, tracking: str | None, weights: Path | None
) -> None:
    """Register an artifact, and say what it became there."""
    from pipeline.commands.artifacts.register import register
    from pipeline.reports.progress import TerminalDisplay

    with TerminalDisplay(progress) as display:
        made = register(study, artifact, name, tracking=tracking, weights=weights, display=display)
    alias = f", the {made.alias}" if made.alias else ""
    plainly = {"soft_wrap": True, "highlight": False, "markup": False}
    console.print(f"{name} version {made.version}{alias}: {made.reason}.", **plainly)  # type: ignore[arg-type]
    serve = f"mlflow models serve --model-uri {made.uri} --env-manager local"
    console.print(f"Serve it: MLFLOW_TRACKING_URI={made.tracking} {serve}", **plainly)  # type: ignore[arg-type]


def _after(path: Path, formats: Sequence[str]) -> str:
    """Return the commands that an exported model is tried with: only `native` is read by igq."""
    if "native" not in formats:
        return f"igq verify {path if len(formats) == 1 else path / formats[0]}"
    native = path if len(formats) == 1 else path / "native"
    return f"igq evaluate {native} --images DIR, igq run {native} IMAGE, or igq bench {native}"


def evaluate(
    artifact: Annotated[Path, typer.Argument(help="Folder that igq export wrote.")],
    images: Annotated[
        str,
        typer.Option(
            help="Folder of class folders, CSV or JSON of labels, `digits`, or NAME:ROOT."
        ),
    ],
    weights: Annotated[
        Path | None, typer.Option(help="Full-precision weights: adds KL and top-1 kept.")
    ] = None,
    classes: Classes = None,
    checkpoint_key: CheckpointKey = None,
    engine: EngineChoice = Engine.AUTO,
    as_json: AsJson = False,
) -> None:
    """Measure an exported model on images."""
    check_artifact(artifact)
    check_source(images)
    check_weights_file(weights)
    loading("torch", "timm")
    from pipeline.commands.artifacts.evaluate import evaluate_artifact
    from pipeline.reports.progress import TerminalDisplay
    from pipeline.reports.tables import evaluation_lines

    with TerminalDisplay(progress) as display:
        measured = evaluate_artifact(
            artifact, images, weights, display, engine, classes, checkpoint_key
        )
    if as_json:
        print_json({"artifact": str(artifact), "source": images, **measured.json()})
        return
    lines = evaluation_lines(
        measured.score, measured.images, measured.reference_top1, measured.notes
    )
    for line in lines:
        console.print(line, soft_wrap=True)


def apply(
    allocation: Annotated[Path, typer.Argument(help="allocation.json of an artifact.")],
    weights: Annotated[Path, typer.Option(help="The full-precision weights.")],
    images: Annotated[str, typer.Option(help="Source that calibration images were drawn from.")],
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist yet.")],
) -> None:
    """Make the model of an allocation.json again, from the same weights and calibration images."""
    check_new(out)
    check_source(images)
    check_weights_file(weights)
    loading("torch", "timm")
    from pipeline.commands.artifacts.apply import apply as run
    from pipeline.reports.progress import TerminalDisplay

    with TerminalDisplay(progress) as display:
        applied = run(allocation, weights, images, out, display)
    twin = "the original's" if applied.identical else "not the original's, bit for bit"
    console.print(f"Wrote {applied.path}; its tensors are {twin}.", soft_wrap=True)
    if layers := ", ".join(applied.edited):
        console.print(f"Another model than the original: edited in {layers}.", soft_wrap=True)
    console.print(f"Next: igq evaluate {applied.path} --images DIR", soft_wrap=True)


def verify(
    artifact: Annotated[Path, typer.Argument(help="Folder that igq export wrote.")],
    evaluate: Annotated[
        str | None,
        typer.Option(help="Source of the study's images: the noted scores must come out again."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Full-precision weights: compares the KL too.")
    ] = None,
) -> None:
    """Check that an exported model is as it was written; exit with 2 and a reason where not."""
    check_artifact(artifact)
    check_source(evaluate)
    check_weights_file(weights)
    loading("torch", "timm")
    from pipeline.commands.artifacts.verify import verify_artifact
    from pipeline.reports.progress import TerminalDisplay
    from pipeline.reports.tables import verification_lines

    with TerminalDisplay(progress) as display:
        checked = verify_artifact(artifact, evaluate, weights, display)
    for line in verification_lines(checked.files, checked.score):
        console.print(line, soft_wrap=True, highlight=False)


def run(
    artifact: Annotated[Path, typer.Argument(help="Folder that igq export wrote.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to print for each image.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Classify images with an exported model: the most probable classes of each."""
    check_artifact(artifact)
    loading("torch", "timm")
    from pipeline.commands.artifacts.classify import classify

    found = classify(artifact, images, top)
    if as_json:
        rows = [(one.file, [asdict(guess) for guess in one.guesses]) for one in found]
        print_json([{"file": str(file), "classes": classes} for file, classes in rows])
        return
    for one in found:
        console.print(str(one.file), soft_wrap=True, highlight=False, markup=False)
        for guess in one.guesses:
            line = f"  {guess.probability:6.1%}  {guess.name} ({guess.label})"
            console.print(line, soft_wrap=True, highlight=False, markup=False)


def bench(
    artifact: Annotated[Path, typer.Argument(help="Folder that igq export wrote.")],
    rounds: Annotated[int, typer.Option(min=2, help="Rounds in which all forms take turns.")] = 50,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of torch and onnxruntime. [default: torch's]")
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="Images at once. [default: 1 and 8]")
    ] = None,
    memory: Annotated[
        bool, typer.Option(help="Peak memory too, of a process for each form.")
    ] = True,
    without: Annotated[
        list[str] | None, typer.Option(help="Form to leave out, by its name in the table.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure an exported model's latency on this machine, beside full precision and ONNX."""
    check_artifact(artifact)
    loading("torch", "timm", "onnxruntime")
    from pipeline.commands.artifacts.bench import BATCHES
    from pipeline.commands.artifacts.bench import bench as measure
    from pipeline.reports.latencies import latency_table
    from pipeline.reports.progress import TerminalDisplay

    with TerminalDisplay(progress) as display:
        measured = measure(
            artifact, rounds, threads, batch or BATCHES, memory, without or (), display
        )
    if as_json:
        print_json(asdict(measured))
        return
    console.print(latency_table(measured))
    for reason in measured.missing:
        console.print(f"Not measured: {reason}", soft_wrap=True, highlight=False, markup=False)


def package(
    artifact: Annotated[Path, typer.Argument(help="Folder that igq export wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist yet.")],
) -> None:
    """Write an exported model as an MLflow model, which takes images as bytes or pixels."""
    check_artifact(artifact)
    check_new(out)
    loading("torch", "mlflow")
    from pipeline.commands.artifacts.package import package as write

    made = write(artifact, out)
    console.print(f"Wrote {made}.", soft_wrap=True, highlight=False)
    serve = f"mlflow models serve --model-uri {made} --env-manager local"
    console.print(f"Next: {serve}", soft_wrap=True, highlight=False)
