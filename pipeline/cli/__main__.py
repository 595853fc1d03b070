"""The command as a module: `python -m pipeline.cli`."""

from pipeline.cli.app import main

main()
