"""The shape of the code: who imports whom, what importing costs, how long a file is."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from igq.arithmetic.affine import affine_parameters

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("igq", "pipeline", "search_spaces")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("lint-imports")
    path = {"PYTHONPATH": f"{ROOT / 'tests' / 'here'}{os.pathsep}{root}"}  # not what is installed
    return subprocess.run(
        [command, "--no-cache"], cwd=root, env=os.environ | path, capture_output=True, text=True
    )


def run_python(code: str) -> str:
    """Return the output of `code` on both streams, in a fresh interpreter."""
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return run.stdout


def test_imports_keep_the_contracts() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("igq.grouping.base", "ray"),
        ("igq.grouping.base", "timm"),
        ("igq.grouping.base", "pipeline.study"),
        ("igq.grouping.base", "igq.vit"),
        ("igq.grouping.base", "igq.grouping.contiguous"),
        ("igq.settings", "torch"),
        ("igq.formats.base", "onnx"),
        ("pipeline.commands.artifacts.export", "onnxruntime"),
        ("pipeline.cluster.ray.tuning", "optuna"),
        ("pipeline.cluster.base", "ray"),
        ("pipeline.proposals.proposals", "pipeline.cluster"),
        ("pipeline.study.trials", "mlflow"),
        ("pipeline.study.trials", "pipeline.commands"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, importer: str, imported: str) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    module = tmp_path / f"{importer.replace('.', '/')}.py"
    module.write_text(f"import {imported}\n{module.read_text()}")

    result = lint_imports(tmp_path)

    assert result.returncode != 0
    assert re.search(rf"{importer} -> {imported}\b|{sibling(importer, imported)}", result.stdout)


def sibling(importer: str, imported: str) -> str:
    """The line of a circle between two modules of one package; no line in any other case."""
    (one, _, first), (two, _, second) = (name.rpartition(".") for name in (imported, importer))
    return rf"- \.{first} -> \.{second} " if one == two else "(?!)"


HEAVY = {"torch", "timm", "ray", "optuna", "mlflow", "matplotlib", "scipy", "onnx", "onnxruntime"}


@pytest.mark.parametrize(
    "module", ["igq", "pipeline", "search_spaces", "pipeline.cli", "pipeline.study.request"]
)
def test_importing_is_light_and_silent(module: str) -> None:
    loaded = run_python(f"import sys, {module}; print(*({HEAVY} & set(sys.modules)))")
    assert loaded == "\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["search", "--help"], ["spaces"], ["search", "--trials", "0"]]
)
def test_a_command_that_computes_nothing_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import atexit, sys; sys.argv = ['igq', *{arguments}]\n"
        f"atexit.register(lambda: print('heavy:', *({HEAVY} & set(sys.modules))))\n"
        "from pipeline.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass"
    )
    assert run_python(code).endswith("heavy:\n")


@pytest.mark.slow
def test_the_names_of_igq_load_no_more_than_they_need() -> None:
    code = "import sys, igq; igq.evaluate; print(*({'timm', 'scipy'} & set(sys.modules)))"
    assert run_python(code) == "\n"


def test_formats_load_onnx_when_a_model_is_written() -> None:
    code = "import sys, igq.formats; print(*({'onnx', 'onnxruntime'} & set(sys.modules)))"
    assert run_python(code) == "\n"


def test_signatures_are_checked_in_tests() -> None:
    with pytest.raises(TypeCheckError):
        affine_parameters(torch.zeros(2), torch.zeros(3), bits=4)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is_and_stays_short(path: Path) -> None:
    source = path.read_text()
    assert ast.get_docstring(ast.parse(source)), "a module starts with a docstring"
    assert len(source.splitlines()) <= 300, "a file over 300 lines asks to be two"
