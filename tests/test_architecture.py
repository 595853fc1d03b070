"""The shape of the code: who imports whom, what importing costs, how long a file is."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from igq.affine import affine_parameters

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("igq", "pipeline", "search_spaces")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([command, "--no-cache"], cwd=root, capture_output=True, text=True)


def run_python(code: str) -> str:
    """What `code` prints, on both streams, in a fresh interpreter."""
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
        ("igq.grouping", "ray"),
        ("igq.grouping", "timm"),
        ("igq.grouping", "pipeline.study"),
        ("igq.grouping", "igq.vit"),
        ("pipeline.cluster", "optuna"),
        ("pipeline.cluster", "pipeline.proposals"),
        ("pipeline.study", "mlflow"),
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
    assert f"{importer} -> {imported} (l.1)" in result.stdout


@pytest.mark.parametrize(
    ("module", "strangers"),
    [
        ("igq", {"ray", "optuna", "mlflow"}),
        ("pipeline.cli", {"ray", "mlflow"}),  # `igq --help` answers at once
    ],
)
def test_importing_is_light_and_silent(module: str, strangers: set[str]) -> None:
    loaded = run_python(f"import sys, {module}; print(*({strangers} & set(sys.modules)))")
    assert loaded == "\n"


def test_signatures_are_checked_in_tests() -> None:
    with pytest.raises(TypeCheckError):
        affine_parameters(torch.zeros(2), torch.zeros(3), bits=4)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is_and_stays_short(path: Path) -> None:
    source = path.read_text()
    assert ast.get_docstring(ast.parse(source)), "a module starts with a docstring"
    assert len(source.splitlines()) <= 300, "a file over 300 lines asks to be two"
