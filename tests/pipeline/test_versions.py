"""Versions: what drivers and workers compare; importing them loads nothing heavy."""

import subprocess
import sys

import torch

from pipeline.versions import versions


def test_the_build_is_no_part_of_torch_s_version() -> None:
    assert versions()["torch"] == torch.__version__.partition("+")[0]


def test_igq_s_version_has_a_hash_of_its_source() -> None:
    assert versions()["igq"].endswith(")")
    assert versions() == versions()


def test_any_node_imports_it_first() -> None:
    code = "import sys, pipeline.versions; print({'torch', 'ray', 'igq'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
