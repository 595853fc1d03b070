"""The audit of pinned versions fails on findings, and says where nothing was looked up."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).resolve().parent.parent / ".ci" / "audit.py"
SAFE: dict[str, Any] = {"name": "rich", "version": "1.0", "vulns": []}
UNKNOWN = {"name": "torch", "skip_reason": "torch was not found"}
HIT = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["1.1"]}
WEAK = {"name": "pillow", "version": "1.0", "vulns": [HIT]}

pytestmark = pytest.mark.skipif(not FILE.exists(), reason="an sdist has no .ci")


@pytest.fixture(scope="module")
def audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_finding_fails_and_names_what_to_install(audit: Any) -> None:
    lines, code = audit.judged([SAFE, WEAK], {})
    assert (code, lines) == (1, ["audit: 2 of 2 looked up", lines[1]])
    assert lines[1] == "audit: pillow 1.0 PYSEC-1: FOUND (1.1)"


def test_an_exception_is_named_by_any_alias_and_goes_when_it_is_not_needed(audit: Any) -> None:
    lines, code = audit.judged([SAFE, WEAK], {"CVE-1": "igq writes no such file"})
    assert (code, "no matter: igq writes no such file" in lines[1]) == (0, True)
    lines, code = audit.judged([SAFE], {"CVE-1": "igq writes no such file"})
    assert (code, lines[-1]) == (1, "audit: the exception CVE-1 is not needed any more: remove it")


def test_a_version_that_was_not_looked_up_is_named(audit: Any) -> None:
    lines, code = audit.judged([SAFE, UNKNOWN], {})
    assert (code, lines[1]) == (0, "audit: not looked up: torch was not found")


def test_where_nothing_was_looked_up_it_is_skipped_and_not_passed(audit: Any) -> None:
    lines, code = audit.judged([UNKNOWN, UNKNOWN], {})
    assert code == 0
    assert lines[0].startswith("AUDIT SKIPPED: no version was looked up for vulnerabilities, as ")


def test_without_pip_audit_it_is_skipped(
    audit: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "COMMAND", ("no_such_module",))
    assert audit.main("constraints.txt") == 0
    said = capsys.readouterr().out
    assert "AUDIT SKIPPED" in said
    assert f"{sys.executable}: No module named no_such_module" in said
