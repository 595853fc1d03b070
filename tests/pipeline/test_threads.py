"""Threads that wait sleep: the settings stand before torch is imported."""

import os
import subprocess
import sys

from pipeline.threads import PATIENT

CODE = """
import os, sys
sys.argv = ["igq", "spaces"]
from pipeline.cli import main
try: main()
except SystemExit: pass
print("torch" in sys.modules, os.environ["OMP_WAIT_POLICY"], os.environ["GOMP_SPINCOUNT"])
"""


def settings_of_a_command(**own: str) -> str:
    bare = {name: value for name, value in os.environ.items() if name not in PATIENT}
    run = subprocess.run(
        [sys.executable, "-c", CODE], env=bare | own, capture_output=True, text=True, check=True
    )
    return run.stdout.splitlines()[-1]


def test_a_command_waits_patiently() -> None:
    assert settings_of_a_command() == "False PASSIVE 0"


def test_settings_of_the_user_s_own_stand() -> None:
    assert settings_of_a_command(OMP_WAIT_POLICY="ACTIVE") == "False ACTIVE 0"
