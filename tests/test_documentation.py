"""README and docs say what is so: their code runs, their commands and files are there."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from pipeline.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCS = "".join(path.read_text() for path in PAGES)
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_in_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    assert re.fullmatch(r"Score\(kl=\d+\.\d+, top1=None\)\n", capsys.readouterr().out)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_readme(command: str) -> None:
    assert any(f"igq {command}" in block for block in blocks("sh"))


def test_commands_in_readme_exist_with_their_options() -> None:
    lines = " ".join(blocks("sh")).replace("\\\n", " ").splitlines()
    calls = [line.split("#")[0].split() for line in lines if line.strip().startswith("igq ")]
    assert calls
    for _, command, *words in calls:
        known = {
            option for p in COMMANDS[command].params for option in (*p.opts, *p.secondary_opts)
        }
        assert {word for word in words if word.startswith("--")} <= known


def test_each_target_of_the_makefile_has_one_rule_and_is_no_file() -> None:
    makefile = (ROOT / "Makefile").read_text()
    rules = re.findall(r"^([a-z-]+):(?!=)", makefile, re.MULTILINE)
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    assert sorted(rules) == sorted(phony[1].split())


def test_make_targets_in_readme_exist() -> None:
    targets = set(re.findall(r"make (\w+) ", " ".join(blocks("sh"))))
    makefile = (ROOT / "Makefile").read_text()
    assert targets == {"demo", "test"}
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120


GENERATED = {"cli.md", "spaces.md", "igq.md", "pipeline.md", "search_spaces.md"}


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *PAGES], ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text()):
        known = (path.parent / target).exists() or Path(target).name in GENERATED
        assert known, target


def test_benchmarks_that_are_named_exist() -> None:
    named = set(re.findall(r"python -m benchmarks\.(\w+)", README + DOCS))
    assert named
    there = {name for name in named if (ROOT / "benchmarks" / f"{name}.py").is_file()}
    noted = set(re.findall(r"git\s+show\s+\w+:benchmarks/(\w+)\.py", DOCS))
    assert named - noted <= there


def entries(folder: str) -> list[Path]:
    """Return the numbered pages of a folder of docs."""
    return sorted((ROOT / "docs" / folder).glob("0*.md"))


@pytest.mark.parametrize("path", entries("reports"), ids=lambda path: path.stem)
def test_a_report_says_what_was_found_and_how(path: Path) -> None:
    text = path.read_text()
    for part in ("Question", "Verdict", "Command", "Commit", "Machine", "Reproducible"):
        assert re.search(rf"^- \*\*{part}\*\*: \S", text, flags=re.MULTILINE), part


@pytest.mark.parametrize("path", entries("adr"), ids=lambda path: path.stem)
def test_a_decision_is_short_and_has_its_parts(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 40
    assert re.findall(r"^## (\w+)", text, flags=re.MULTILINE) == [
        "Context",
        "Decision",
        "Consequences",
    ]


def test_no_number_is_still_to_be_filled_in() -> None:
    assert re.findall(r"@[A-Z0-9]+@", README + DOCS) == []
