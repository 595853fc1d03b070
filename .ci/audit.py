"""Look the pinned versions up among known vulnerabilities: `python .ci/audit.py constraints.txt`.

Exit code 1 where a version has one. Where the service cannot be reached nothing is known, which is
said in capitals and is no failure: pip-audit itself says "No known vulnerabilities found" then.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

EXCEPTIONS: Mapping[str, str] = {}
"""Identifier of a vulnerability -> why it does not concern igq. There is none today."""
COMMAND = ("pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off", "-f", "json")
PATIENCE = 300
"""Seconds within which the service must have answered."""


def main(constraints: str) -> int:
    """Print what is known of the pinned versions; return the exit code."""
    command = [sys.executable, "-m", *COMMAND, "-r", constraints]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        content = json.loads(run.stdout)
    except subprocess.TimeoutExpired:
        return skipped(f"the service gave no answer in {PATIENCE} s")
    except ValueError:
        said = run.stderr.strip().splitlines() or ["it printed nothing"]
        return skipped(f"pip-audit did not run: {said[-1]}")
    lines, code = judged(content["dependencies"], EXCEPTIONS)
    print("\n".join(lines))
    return code


def skipped(reason: str) -> int:
    """Say that nothing was looked up, and why."""
    print(f"AUDIT SKIPPED: no version was looked up for vulnerabilities, as {reason}.")
    return 0


def judged(rows: list[dict[str, Any]], exceptions: Mapping[str, str]) -> tuple[list[str], int]:
    """Return lines about the versions that were looked up, and the exit code."""
    unknown = [row for row in rows if "skip_reason" in row]
    if len(unknown) == len(rows):
        reason = unknown[0]["skip_reason"] if unknown else "no version is pinned"
        return [f"AUDIT SKIPPED: no version was looked up for vulnerabilities, as {reason}."], 0
    lines, code, seen = [f"audit: {len(rows) - len(unknown)} of {len(rows)} looked up"], 0, set()
    lines += [f"audit: not looked up: {row['skip_reason']}" for row in unknown]
    for row in rows:
        for found in row.get("vulns", ()):
            names = {found["id"], *found.get("aliases", ())}
            known = sorted(names & exceptions.keys())
            seen |= set(known)
            why = f"known, and no matter: {exceptions[known[0]]}" if known else "FOUND"
            code = code if known else 1
            mended = ", ".join(found.get("fix_versions", ())) or "no version yet"
            lines.append(f"audit: {row['name']} {row['version']} {found['id']}: {why} ({mended})")
    stale = sorted(exceptions.keys() - seen)
    lines += [f"audit: the exception {name} is not needed any more: remove it" for name in stale]
    return lines, 1 if stale else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
