PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PARALLEL := -n 2 --dist loadgroup

# Nothing here needs the network once it is installed, and nothing reports on its user.
export HF_HUB_OFFLINE := 1
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_MKDOCS_2_WARNING := 1
# Each process that a test starts would compile every module anew without the compiled files.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast coverage faults benchmarks fuzz mutation check check-native docs outside gpu-check

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST)

install: $(INSTALLED) ## set up .venv, and no more

demo: $(INSTALLED) ## search, export and evaluate a small model, from nothing, in a few minutes
	rm -rf studies/demo artifacts/demo
	$(BIN)/igq search demo --workers 2 --out studies/demo
	$(BIN)/igq export studies/demo --out artifacts/demo
	$(BIN)/igq evaluate artifacts/demo --images digits
	$(BIN)/igq report studies/demo

# Shapes are checked in the fast tests alone: whole studies take three times as long with it.
test: check ## check, then every test and docstring example
	$(BIN)/pytest $(PARALLEL) -m fast
	JAXTYPING_DISABLE=1 $(BIN)/pytest $(PARALLEL) -m "not fast"

test-fast: $(INSTALLED) ## the tests for daily work
	$(BIN)/pytest $(PARALLEL) -m fast

coverage: $(INSTALLED) ## the lines that the fast tests run; it makes them take half as long again
	$(BIN)/pytest $(PARALLEL) -m fast --cov --cov-report=term:skip-covered

faults: $(INSTALLED) ## kill workers, nodes, heads, drivers, servers and disks under searches: half an hour
	$(BIN)/pytest tests/faults -m "faults or ray" --durations=0 -o timeout=900

benchmarks: $(INSTALLED) ## every benchmark at its smallest: 10 minutes
	$(BIN)/pytest tests/test_benchmarks.py -m "slow or ray or long"

SECONDS := 300
fuzz: $(INSTALLED) ## let atheris try the readers of files from outside: 5 minutes each, or SECONDS=30
	$(BIN)/python -m pip install --quiet atheris
	$(BIN)/python -m tests.fuzz $(SECONDS) $(READERS)

# Shapes are checked for what survives without: tests take three times as long with it.
mutation: $(INSTALLED) ## change the numerical core, one place at a time, and list changes no test notices: hours
	rm -f out/mutation.jsonl
	JAXTYPING_DISABLE=1 $(BIN)/python -m tests.mutation
	$(BIN)/python -m tests.mutation

check: $(INSTALLED) ## style, types, the imports' architecture, the documentation and pinned versions
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --quiet --site-dir out/site
	$(BIN)/python .ci/audit.py constraints.txt

check-native: $(INSTALLED) ## the runtime's tests on a library that checks addresses and undefined behaviour
	$(BIN)/python -m pip install --quiet cmake ninja
	$(BIN)/cmake -S . -B build/sanitized -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DIGQ_SANITIZE=ON
	$(BIN)/cmake --build build/sanitized
	IGQ_RUNTIME_FOLDER=build/sanitized/igq/runtime ASAN_OPTIONS=detect_leaks=0 \
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	$(BIN)/pytest tests/igq/runtime -k "not deployment"

docs: $(INSTALLED) ## build the documentation into out/site
	$(BIN)/mkdocs build --site-dir out/site

# Not in CI: installing Chromium and PostgreSQL and starting MLflow's server take minutes there.
outside: $(INSTALLED) ## MLflow's pages in Chromium, servers on PostgreSQL: apt-get install chromium postgresql
	$(BIN)/python -m pip install --quiet playwright 'psycopg[binary]'
	$(BIN)/pytest tests/pipeline/tracking/test_browser.py tests/contracts/test_far_stores.py

gpu-check: $(INSTALLED) ## check and time a GPU: run it first wherever there is one
	mkdir -p out
	$(BIN)/pytest -m gpu
	$(BIN)/python -m benchmarks.gpu_check --device cuda --json out/gpu_check.json

# uv takes a minute where pip takes four; pip follows settings that uv does not know, such as a mirror's.
WANTED := pip install --quiet --editable '.[dev,docs]' --constraint constraints.txt
export UV_SYSTEM_CERTS := true
$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into .venv (again only when pyproject.toml or constraints.txt change)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet uv --constraint constraints.txt && $(BIN)/uv $(WANTED) --python .venv \
	|| { echo "uv could not: pip installs it, in some minutes"; $(BIN)/$(WANTED); }
	@touch $@
