# ruff: noqa: E501
"""Mistakes as a table: each has its exact message, exit code 2, no traceback, and leaves nothing."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from pipeline.cli import app, main

MODEL = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10, "embed_dim": 12}
SPACE: dict[str, Any] = {
    "model": {"name": "vit_tiny_patch16_224", "arguments": {**MODEL, "depth": 1, "num_heads": 3}},
    "images": "digits",
    "weight_bits": 4,
    "activation_bits": 4,
    "num_groups": [1, 2, 4],
    "budget": {"uniform": 2},
    "calibration_images": 4,
    "search_images": 6,
    "validation_images": 6,
    "final_images": 0,
    "trials": 4,
}

KEYS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"weight_bits": 1}, "`weight_bits` must be between 2 and 8, but got weight_bits=1."),
    ({"weight_bits": 9}, "`weight_bits` must be between 2 and 8, but got weight_bits=9."),
    ({"weight_bits": "four"}, "`weight_bits` must be a valid integer, but got weight_bits='four'."),
    ({"weight_bits": 4.5}, "`weight_bits` must be a valid integer, but got weight_bits=4.5."),
    (
        {"weight_bits": [4]},
        "`weight_bits` must be at least two numbers, strictly increasing, but got weight_bits=[4].",
    ),
    (
        {"weight_bits": [6, 4]},
        "`weight_bits` must be at least two numbers, strictly increasing, but got weight_bits=[6, 4].",
    ),
    ({"weight_bits": True}, "`weight_bits` must be a valid integer, but got weight_bits=True."),
    (
        {"activation_bits": 0},
        "`activation_bits` must be between 2 and 8, but got activation_bits=0.",
    ),
    (
        {"activation_bits": None},
        "`activation_bits` must be a valid integer, but got activation_bits=None.",
    ),
    (
        {"num_groups": []},
        "`num_groups` must be at least two numbers, strictly increasing, but got num_groups=[].",
    ),
    (
        {"num_groups": [2]},
        "`num_groups` must be at least two numbers, strictly increasing, but got num_groups=[2].",
    ),
    (
        {"num_groups": [2, 2]},
        "`num_groups` must be at least two numbers, strictly increasing, but got num_groups=[2, 2].",
    ),
    (
        {"num_groups": [4, 2]},
        "`num_groups` must be at least two numbers, strictly increasing, but got num_groups=[4, 2].",
    ),
    ({"num_groups": [0, 1]}, "`num_groups[0]` must be between 1 and 256, but got num_groups[0]=0."),
    (
        {"num_groups": [1, 257]},
        "`num_groups[1]` must be between 1 and 256, but got num_groups[1]=257.",
    ),
    ({"num_groups": "1,2"}, "`num_groups` must be a list, but got num_groups='1,2'."),
    (
        {"num_groups": [1, "two"]},
        "`num_groups[1]` must be a valid integer, but got num_groups[1]='two'.",
    ),
    (
        {"num_groups": [1, 2.5]},
        "`num_groups[1]` must be a valid integer, but got num_groups[1]=2.5.",
    ),
    (
        {"budget": None},
        "`budget` must have exactly one of the keys uniform, bops, overhead, latency, but got budget=None.",
    ),
    (
        {"budget": 8},
        "`budget` must have exactly one of the keys uniform, bops, overhead, latency, but got budget=8.",
    ),
    (
        {"budget": {}},
        "`budget` must have exactly one of the keys uniform, bops, overhead, latency, but got budget={}.",
    ),
    (
        {"budget": {"uniform": 0}},
        "`budget.uniform` must be between 1 and 256, but got budget.uniform=0.",
    ),
    (
        {"budget": {"uniform": 257}},
        "`budget.uniform` must be between 1 and 256, but got budget.uniform=257.",
    ),
    (
        {"budget": {"uniform": "w4a4g8"}},
        "`budget.uniform` must be a number of groups where bits are not searched, but got budget.uniform='w4a4g8'.",
    ),
    (
        {"budget": {"bops": -1}},
        "`budget.bops` must be positive and finite, but got budget.bops=-1.",
    ),
    ({"budget": {"bops": "many"}}, "`budget.bops` must be a number, but got budget.bops='many'."),
    (
        {"budget": {"overhead": "3"}},
        "`budget.overhead` must be a share, more than 0 and at most 1, such as 3 % or 0.03, but got budget.overhead='3'.",
    ),
    (
        {"budget": {"overhead": "-3 %"}},
        "`budget.overhead` must be a number, but got budget.overhead='-3 %'.",
    ),
    (
        {"budget": {"uniform": 2, "bops": 3}},
        "`budget` must have exactly one of the keys uniform, bops, overhead, latency, but got budget={'bops': 3, 'uniform': 2}.",
    ),
    (
        {"budget": {"colour": 2}},
        "`budget` must have exactly one of the keys uniform, bops, overhead, latency, but got budget={'colour': 2}.",
    ),
    (
        {"max_size": "3"},
        "`max_size` must be a size in B, kB, MB or GB, such as 3.2 MB, but got max_size='3'.",
    ),
    (
        {"max_size": "3.2 parsecs"},
        "`max_size` must be a size in B, kB, MB or GB, such as 3.2 MB, but got max_size='3.2 parsecs'.",
    ),
    (
        {"max_size": {"weight_bits": 1}},
        "`max_size.weight_bits` must be between 2 and 8, but got max_size.weight_bits=1.",
    ),
    ({"trials": 0}, "`trials` must be at least 1, but got trials=0."),
    ({"trials": -3}, "`trials` must be at least 1, but got trials=-3."),
    ({"trials": "ten"}, "`trials` must be a valid integer, but got trials='ten'."),
    ({"search_images": 0}, "`search_images` must be at least 1, but got search_images=0."),
    (
        {"calibration_images": 1.5},
        "`calibration_images` must be a valid integer, but got calibration_images=1.5.",
    ),
    (
        {"validation_images": False},
        "`validation_images` must be a valid integer, but got validation_images=False.",
    ),
    ({"final_images": -1}, "`final_images` must be at least 0, but got final_images=-1."),
    ({"tied": "row"}, "`tied` must be 'block' or 'kind', but got tied='row'."),
    (
        {"softmax_method": "columns"},
        "`softmax_method` must be 'rows', 'unit_rows' or 'keys', but got softmax_method='columns'.",
    ),
    (
        {"input_method": "pixels"},
        "`input_method` must be 'channels' or 'tokens', but got input_method='pixels'.",
    ),
    (
        {"rotation": "round"},
        "`rotation` must be 'none', 'wide' or 'all', but got rotation='round'.",
    ),
    (
        {"weight_method": "guess"},
        "`weight_method` must be 'nearest' or 'corrected', but got weight_method='guess'.",
    ),
    (
        {"assignment": "first"},
        "`assignment` must be 'nearest' or 'least_error', but got assignment='first'.",
    ),
    (
        {"model": None},
        "`model` must be a timm name, or a mapping with `name` and `arguments`, but got model=None.",
    ),
    ({"model": ""}, "`model.name` must be the name of a timm model, but got model.name=''."),
    (
        {"model": [1]},
        "`model` must be a timm name, or a mapping with `name` and `arguments`, but got model=[1].",
    ),
    (
        {"model": " vit"},
        "`model.name` must be the name of a timm model, but got model.name=' vit'.",
    ),
    ({"model": {"name": 3}}, "`model.name` must be a valid string, but got model.name=3."),
    ({"model": {"arguments": {}}}, "`model.name` must be given, but got nothing."),
    (
        {"model": {"name": "vit_tiny_patch16_224", "arguments": {"pretrained": True}}},
        "`model.arguments` must name no weights, which are named by `weights`, but got model.arguments={'pretrained': True}.",
    ),
    (
        {
            "model": {
                "name": "vit_tiny_patch16_224",
                "arguments": {"checkpoint_path": "/etc/passwd"},
            }
        },
        "`model.arguments` must name no weights, which are named by `weights`, but got model.arguments={'checkpoint_path': '/etc/passwd'}.",
    ),
    (
        {"model": {"name": "vit_tiny_patch16_224", "tag": "x"}},
        "every key must be a known one, but got model.tag='x'.",
    ),
    (
        {"colour": "red"},
        "every key must be a known one, but got colour='red'.\n  The keys are description, model, weights, images, weight_bits, activation_bits, weight_method, tuning_steps, softmax_method, input_method, rotation, assignment, num_groups, tied, budget, max_bops, max_size, calibration_images, search_images, final_images, validation_images, sensitivity_images, trials.",
    ),
    ({"name": "mine"}, "`name` must be left out, it is the file's name, but got name='mine'."),
    ({"images": 3}, "`images` must be a valid string, but got images=3."),
    ({"description": [1]}, "`description` must be a valid string, but got description=[1]."),
    ({"weights": 3}, "`weights` must be the path of a file, but got weights=3."),
)

FILES: tuple[tuple[str, str], ...] = (
    ("", "the file must map keys to values, but got None."),
    ("[]", "the file must map keys to values, but got []."),
    ("3", "the file must map keys to values, but got 3."),
    ("- a", "the file must map keys to values, but got ['a']."),
    ("a: b: c", "the file must be YAML, but line 1: mapping values are not allowed here."),
    ("\t", "the file must be YAML, but line 1: found character '\\t' that cannot start any token."),
    (
        "{",
        "the file must be YAML, but line 1: expected the node content, but found '<stream end>'.",
    ),
    (
        "!!python/object/apply:os.system ['touch proof']",
        "the file must be YAML, but line 1: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system'.",
    ),
    ("? [a]\n: b", "the file must be YAML, but line 1: found unhashable key."),
    ("1: 2", "the file must map keys to values, but got {1: 2}."),
    ("&a [*a]", "the file must be YAML, but line 1: an alias must be written out."),
    ("a: &x {b: *x}", "the file must be YAML, but line 1: an alias must be written out."),
    ("a: 2024-13-45", "the file must be YAML, but month must be in 1..12."),
)

BUDGETS: tuple[tuple[str, str], ...] = (
    (
        "",
        "`budget` must be uniform:GROUPS, bops:NUMBER, overhead:SHARE or latency:TIME, but got ''.",
    ),
    (
        "8",
        "`budget` must be uniform:GROUPS, bops:NUMBER, overhead:SHARE or latency:TIME, but got '8'.",
    ),
    (
        "uniform",
        "`budget` must be uniform:GROUPS, bops:NUMBER, overhead:SHARE or latency:TIME, but got 'uniform'.",
    ),
    ("uniform:", "`budget.uniform` must be a valid integer, but got budget.uniform=None."),
    (
        "uniform:x",
        "`budget.uniform` must be a valid integer, or written like w4a4g8, but got budget.uniform='x'.",
    ),
    ("uniform:0", "`budget.uniform` must be between 1 and 256, but got budget.uniform=0."),
    ("bops:", "`budget.bops` must be a number, but got budget.bops=None."),
    ("bops:-1", "`budget.bops` must be positive and finite, but got budget.bops=-1."),
    ("bops:nan", "`budget.bops` must be positive and finite, but got budget.bops='nan'."),
    ("bops:inf", "`budget.bops` must be positive and finite, but got budget.bops='inf'."),
    ("bops:1e400", "`budget.bops` must be positive and finite, but got budget.bops='1e400'."),
    ("overhead:", "`budget.overhead` must be a number, but got budget.overhead=None."),
    (
        "overhead:3",
        "`budget.overhead` must be a share, more than 0 and at most 1, such as 3 % or 0.03, but got budget.overhead=3.",
    ),
    ("overhead:nan%", "`budget.overhead` must be a number, but got budget.overhead='nan%'."),
    (
        "colour:3",
        "`budget` must be uniform:GROUPS, bops:NUMBER, overhead:SHARE or latency:TIME, but got 'colour:3'.",
    ),
    (
        "uniform:w9a9g9",
        "`budget.uniform` must be a valid integer, or written like w4a4g8, but got budget.uniform='w9a9g9'.",
    ),
)

OTHERS: tuple[tuple[str, str], ...] = (
    (
        "search none.yaml",
        "none.yaml is not a search space:\n  the file must be readable, but got No such file or directory.",
    ),
    (
        "search demo --classes none.txt --out study",
        "`classes` must be natural, alphabetical or a file, but got none.txt: No such file or directory.",
    ),
    (
        "search demo --images nowhere --out study",
        "`images` must be a folder, a CSV or JSON file of labels, `digits`, or NAME:ROOT as timm.data.create_dataset takes them (torch/cifar10:/data), but got 'nowhere', which is none.",
    ),
    (
        "search demo --weights none.pth --out study",
        "none.pth could not be read as weights: there is no such file.",
    ),
    (
        "search vit_tiny_w4a4 --num-classes 7 --images digits --out study",
        "`num_classes` needs the weights of a model that was trained for so many classes, but got num_classes=7 and no --weights.",
    ),
    (
        "search vit_tiny_w4a4 --checkpoint-key ema --images digits --out study",
        "`checkpoint_key` needs `weights`, but got ema and no --weights.",
    ),
    ("search demo --out study --resume", "a study must hold study.json, but study has none."),
    ("compare nowhere", "a study must hold study.json, but nowhere has none."),
    ("export nowhere --out artifact", "a study must hold study.json, but nowhere has none."),
    ("ui nowhere", "a study must hold study.json, but nowhere has none."),
    ("report nowhere", "a study must hold study.json, but nowhere has none."),
    (
        "evaluate nowhere --images digits",
        "nowhere could not be read as an artifact: there is no such folder.",
    ),
    (
        "evaluate . --images digits",
        ". could not be read as an artifact: manifest.json: there is no such file",
    ),
    (
        "evaluate . --images nowhere",
        "`images` must be a folder, a CSV or JSON file of labels, `digits`, or NAME:ROOT as timm.data.create_dataset takes them (torch/cifar10:/data), but got 'nowhere', which is none.",
    ),
    (
        "evaluate . --images digits --weights none.pth",
        "none.pth could not be read as weights: there is no such file.",
    ),
    (
        "apply nowhere.json --weights none.pth --images digits --out again",
        "none.pth could not be read as weights: there is no such file.",
    ),
    (
        "apply nowhere.json --weights . --images nowhere --out again",
        "`images` must be a folder, a CSV or JSON file of labels, `digits`, or NAME:ROOT as timm.data.create_dataset takes them (torch/cifar10:/data), but got 'nowhere', which is none.",
    ),
    (
        "apply nowhere.json --weights . --images digits --out .",
        "`out` must not exist yet, but . does.",
    ),
    (
        "apply nowhere.json --weights . --images digits --out again",
        "nowhere.json could not be read as an allocation: nowhere.json: there is no such file",
    ),
    ("verify nowhere", "nowhere could not be read as an artifact: there is no such folder."),
    ("verify .", ". could not be read as an artifact: manifest.json: there is no such file"),
    (
        "verify . --evaluate nowhere",
        "`images` must be a folder, a CSV or JSON file of labels, `digits`, or NAME:ROOT as timm.data.create_dataset takes them (torch/cifar10:/data), but got 'nowhere', which is none.",
    ),
    ("run nowhere cat.jpg", "nowhere could not be read as an artifact: there is no such folder."),
    ("run . cat.jpg", "an image must be a file or a folder, but cat.jpg is not there."),
    ("bench nowhere", "nowhere could not be read as an artifact: there is no such folder."),
    (
        "package nowhere --out model",
        "nowhere could not be read as an artifact: there is no such folder.",
    ),
    ("package . --out .", "`out` must not exist yet, but . does."),
    (
        "package . --out model",
        ". could not be read as an artifact: manifest.json: there is no such file",
    ),
    ("profile nowhere --target here", "`model` must be a model that timm has, but got 'nowhere'."),
    (
        "profile nowhere.yaml --target here --out latency.json",
        "nowhere.yaml is not a search space:\n  the file must be readable, but got No such file or directory.",
    ),
    (
        "reproduce --images nowhere --calibration digits",
        "`images` must be a folder, a CSV or JSON file of labels, `digits`, or NAME:ROOT as timm.data.create_dataset takes them (torch/cifar10:/data), but got 'nowhere', which is none.",
    ),
    (
        "reproduce --images digits --calibration nowhere",
        "`images` must be a folder, a CSV or JSON file of labels, `digits`, or NAME:ROOT as timm.data.create_dataset takes them (torch/cifar10:/data), but got 'nowhere', which is none.",
    ),
    (
        "reproduce --images digits --calibration digits --weights-dir none",
        "`weights_dir` must hold one of vit_tiny_patch16_224.safetensors, vit_small_patch16_224.safetensors, vit_base_patch16_224.safetensors, deit_tiny_patch16_224.safetensors, deit_small_patch16_224.safetensors, deit_base_patch16_224.safetensors, swin_tiny_patch4_window7_224.safetensors, swin_small_patch4_window7_224.safetensors, swin_base_patch4_window7_224.safetensors, but none holds none.",
    ),
    ("sync nowhere", "a study must hold study.json, but nowhere has none."),
    ("sync .", "a study must hold study.json, but . has none."),
    ("status nowhere", "a study must hold study.json, but nowhere has none."),
    ("status .", "a study must hold study.json, but . has none."),
    (
        "export . --out artifact --format bytes",
        "`format` must be one of native, onnx, onnx-igq, pt2, but got 'bytes'.",
    ),
    (
        "export . --out artifact --format onnx --format native,onnx",
        "`format` must name each format once, but got 'onnx,native,onnx'.",
    ),
    ("export . --out .", "`out` must not exist yet, but . does."),
    (
        "export . --out artifact --budget bops:0",
        "`budget.bops` must be positive and finite, but got budget.bops=0.",
    ),
)

USAGE: tuple[tuple[str, str], ...] = (
    (
        "evaluate . --images digits --engine warp",
        "Invalid value for '--engine': Value error, 'warp' is not one of 'auto', 'compiled', 'eager'.",
    ),
    (
        "run . cat.jpg --top 0",
        "Invalid value for '--top': Input should be greater than or equal to 1",
    ),
    (
        "bench . --rounds 1",
        "Invalid value for '--rounds': Input should be greater than or equal to 2",
    ),
    (
        "bench . --threads 0",
        "Invalid value for '--threads': Input should be greater than or equal to 1",
    ),
    ("profile demo", "Missing option '--target'."),
    (
        "cache clear --older -1",
        "Invalid value for '--older': Input should be greater than or equal to 0",
    ),
    (
        "cache burn",
        "Invalid value for 'action': Value error, 'burn' is not one of 'list', 'clear'.",
    ),
    ("models --colour red", "No such option: --colour"),
    ("spaces all", "Got unexpected extra argument(s) (all)"),
    ("burn", "No such command 'burn'."),
    (
        "export . --out artifact --trial -1",
        "Invalid value for '--trial': Input should be greater than or equal to 0",
    ),
    (
        "search demo --seeds 0",
        "Invalid value for '--seeds': Input should be greater than or equal to 1",
    ),
    (
        "search demo --trials 0",
        "Invalid value for '--trials': Input should be greater than or equal to 1",
    ),
    (
        "search demo --workers -1",
        "Invalid value for '--workers': Input should be greater than or equal to 1",
    ),
    (
        "search demo --seed x",
        "Invalid value for '--seed': Input should be a valid integer, unable to parse string as an integer",
    ),
    (
        "search demo --sampler dice",
        "Invalid value for '--sampler': Value error, 'dice' is not one of 'surrogate', 'local', 'tpe', 'random', 'swaps', 'plain'.",
    ),
    (
        "search demo --budget uniform:3 --out study",
        "No such option: --budget (Possible options: --out)",
    ),
    ("compare", "Missing argument 'studies'."),
    ("ui . --port 0", "Invalid value for '--port': Input should be greater than or equal to 1"),
    ("report", "Missing argument 'studies'."),
)

Igq = Callable[..., tuple[int, str, str]]


@pytest.fixture
def igq(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Igq:
    """Run a command in this process and in a folder of its own."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["igq", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert list(folder.iterdir()) == []
        said = re.sub(r"(?m)^loading .* \.\.\.\n", "", captured.err)
        return int(ended.value.code or 0), captured.out, said

    return run


@pytest.mark.parametrize(("change", "message"), KEYS, ids=lambda value: str(value)[:40])
def test_a_key(igq: Igq, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(SPACE | change))
    expected = f"igq: mine.yaml is not a search space:\n  {message}\n"
    assert igq("search", path, "--out", "study") == (2, "", expected)


@pytest.mark.parametrize(("text", "message"), FILES, ids=lambda value: repr(value)[:40])
def test_a_file(igq: Igq, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    expected = f"igq: mine.yaml is not a search space:\n  {message}\n"
    assert igq("search", path, "--out", "study") == (2, "", expected)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["[" * 20_000, "{a: " * 20_000], ids=["lists", "mappings"])
def test_a_file_that_nests_without_end(igq: Igq, tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    code, out, said = igq("search", path, "--out", "study")
    assert (code, out) == (2, "")
    assert said == (
        "igq: mine.yaml is not a search space:\n  the file must be YAML, but nests too deeply.\n"
    )


def test_a_file_of_a_gigabyte(igq: Igq, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with path.open("wb") as file:
        file.truncate(2**30)
    code, out, said = igq("search", path, "--out", "study")
    assert (code, out) == (2, "")
    assert said.endswith("the file must have at most 1048576 bytes.\n")


@pytest.mark.parametrize(("text", "message"), BUDGETS, ids=lambda value: repr(value)[:40])
def test_a_budget(igq: Igq, text: str, message: str) -> None:
    words = ("export", "study", "--out", "artifact", "--budget", text)
    assert igq(*words) == (2, "", f"igq: {message}\n")


@pytest.mark.parametrize(("line", "message"), OTHERS, ids=[line for line, _ in OTHERS])
def test_a_command(igq: Igq, line: str, message: str) -> None:
    assert igq(*line.split()) == (2, "", f"igq: {message}\n")


@pytest.mark.parametrize(("line", "message"), USAGE, ids=[line for line, _ in USAGE])
def test_how_a_command_is_used(igq: Igq, line: str, message: str) -> None:
    code, out, said = igq(*line.split())
    assert (code, out) == (2, "")
    assert " ".join(re.findall(r"│ (.*?) *│", said)) == message


def test_every_command_has_a_mistake() -> None:
    """`igq doctor` takes whatever there is for something to say."""
    commands = get_command(app).commands  # type: ignore[attr-defined]
    tried = {line.split()[0] for line, _ in OTHERS + USAGE}
    assert commands.keys() - tried == {"doctor"}
