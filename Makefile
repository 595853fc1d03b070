PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# Nothing here needs the network once it is installed, and nothing reports on its user.
export HF_HUB_OFFLINE := 1
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test check

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## search, export and evaluate a small model, from nothing, in a few minutes
	rm -rf studies/demo artifacts/demo
	$(BIN)/igq search demo --workers 2 --out studies/demo
	$(BIN)/igq export studies/demo --out artifacts/demo
	$(BIN)/igq evaluate artifacts/demo --images digits

test: check ## check, then every test and docstring example
	$(BIN)/pytest

check: $(INSTALLED) ## style, types and the imports' architecture
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into .venv (again only when pyproject.toml or constraints.txt change)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch $@
