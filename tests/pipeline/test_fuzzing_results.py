"""Readers of studies and artifacts, on files that hypothesis damages or edits.

A damaged file is refused with its reader's own error. An edited artifact whose digests were made
anew is refused, or is the model that its files then say: it loads whole, and computes.
"""

import gzip
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, seed
from hypothesis import strategies as st

import igq
from igq import ArtifactError, Limits
from igq.formats import read_allocation
from igq.formats.integrity import file_entry, sealed
from pipeline.errors import StudyError
from pipeline.preparation.study import Study
from pipeline.proposals import read_trials
from pipeline.study.trials import State, Trial
from tests.fuzzing import CHANGES, DAMAGE, FUZZ, SEED, damaged, edited, refusal
from tests.golden.make_study import STUDIES, unpack, weights

ARTIFACT = STUDIES.parent / "artifact_schema_5"
LISTS = st.lists(CHANGES, min_size=1, max_size=3)


@pytest.fixture(scope="module")
def limits(tmp_path_factory: pytest.TempPathFactory) -> Limits:
    folder = tmp_path_factory.mktemp("golden") / "groups"
    unpack("groups", folder)
    return Study.open(folder, weights()).limits


@cache
def journal() -> list[bytes]:
    packed = STUDIES / "groups" / "journal.log.gz"
    return gzip.decompress(packed.read_bytes()).splitlines(keepends=True)


def assert_trials(path: Path, limits: Limits) -> None:
    """Trials are refused in one line, or each of them is one that a search can have."""
    found: list[Trial] = []
    message = refusal(lambda: found.extend(read_trials(path, "groups", limits)), StudyError)
    assert message is None or (message.isprintable() and str(path) in message)
    for trial in found:
        assert trial.kl is None or trial.kl == trial.kl
        assert trial.state is not State.COMPLETE or trial.curve[-1] == trial.kl
        assert repr(trial.proposal.price)


@pytest.mark.slow
@seed(SEED + 11)
@FUZZ
@given(line=st.integers(0, 10**6), **DAMAGE)
def test_damaged_journals(
    line: int, cut: int, changes: list[tuple[int, int]], tmp_path: Path, limits: Limits
) -> None:
    lines, path = list(journal()), tmp_path / "journal.log"
    line %= len(lines)
    lines[line] = damaged(lines[line], cut, changes)
    path.write_bytes(b"".join(lines))
    assert_trials(path, limits)


@pytest.mark.slow
@seed(SEED + 12)
@FUZZ
@given(line=st.integers(0, 10**6), edits=LISTS)
def test_edited_journals(
    line: int, edits: list[tuple[int, Any]], tmp_path: Path, limits: Limits
) -> None:
    lines, path = list(journal()), tmp_path / "journal.log"
    line %= len(lines)
    lines[line] = json.dumps(edited(json.loads(lines[line]), edits)).encode() + b"\n"
    path.write_bytes(b"".join(lines))
    assert_trials(path, limits)


def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ARTIFACT, folder, ignore=shutil.ignore_patterns("expected.safetensors"))
    return folder


def assert_artifact(folder: Path) -> None:
    """An artifact is refused in one line, or loads and computes."""
    found: list[Any] = []
    message = refusal(lambda: found.append(igq.load(folder)), ArtifactError)
    assert message is None or message.isprintable()
    for artifact in found:
        with torch.inference_mode():
            logits = artifact.model(torch.zeros(1, 1, 8, 8))
        assert logits.shape[0] == 1


@pytest.mark.slow
@seed(SEED + 13)
@FUZZ
@given(name=st.sampled_from(["manifest.json", "model.safetensors", "allocation.json"]), **DAMAGE)
def test_damaged_artifacts(
    name: str, cut: int, changes: list[tuple[int, int]], tmp_path: Path
) -> None:
    folder = copied(tmp_path)
    content = (folder / name).read_bytes()
    broken = damaged(content, cut, changes)
    (folder / name).write_bytes(broken)
    message = refusal(lambda: igq.load(folder), ArtifactError)
    assert (message is None) == (broken == content), "a damaged file was taken"


@pytest.mark.slow
@seed(SEED + 14)
@FUZZ
@given(edits=LISTS)
def test_edited_manifests(edits: list[tuple[int, Any]], tmp_path: Path) -> None:
    folder = copied(tmp_path)
    manifest = edited(json.loads((folder / "manifest.json").read_text()), edits)
    manifest.pop("digest", None)
    try:
        text = json.dumps(sealed(manifest))
    except (ValueError, TypeError):  # NaN has no digest
        text = json.dumps(manifest)
    (folder / "manifest.json").write_text(text)
    assert_artifact(folder)


@pytest.mark.slow
@seed(SEED + 15)
@FUZZ
@given(edits=LISTS)
def test_edited_allocations(edits: list[tuple[int, Any]], tmp_path: Path) -> None:
    folder = copied(tmp_path)
    path = folder / "allocation.json"
    path.write_text(json.dumps(edited(json.loads(path.read_text()), edits)))
    message = refusal(lambda: read_allocation(path), ArtifactError)
    assert message is None or message.isprintable()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("digest")
    manifest["files"][path.name] = file_entry(path)
    (folder / "manifest.json").write_text(json.dumps(sealed(manifest)))
    assert_artifact(folder)
