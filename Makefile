# `make demo` and `make test` do all the set-up themselves on a machine that has Python 3.11 or newer and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NAME ?= support
SEEDS ?= 2000
WORKERS ?= 1
# Test files at a time: one more than there are cores, since many tests wait for processes and for the disk.
JOBS ?= $(shell expr `getconf _NPROCESSORS_ONLN` + 1)
# Hundreds of processes are started in the tests: without kept bytecode each of them compiles all modules anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test check fix docs sim chaos bench deploy-check lock clean

help:
	@echo "make demo          run the sample team on the sample company    (NAME=support)"
	@echo "make test          all checks and tests                         (JOBS: cores + 1)"
	@echo "make check         ruff, pyright, import-linter"
	@echo "make docs          write the tables of docs/ anew from the code"
	@echo "make sim           the deterministic simulation                  (SEEDS=2000 WORKERS=1)"
	@echo "make chaos         kill -9 at every point from both sides, on Postgres too"
	@echo "make bench         measure beside LangGraph and DBOS"
	@echo "make deploy-check  lint and render what is in deploy/"

$(VENV)/.core: requirements/core.lock pyproject.toml
	@echo "Setting up $(VENV) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/core.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.core
	@echo "Adding what the tests need …"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@touch $@

$(VENV)/.deploy: requirements/deploy.lock requirements/helm.lock $(VENV)/.core
	@echo "Adding what deploy/ is checked with …"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/deploy.lock
	@$(BIN)/python scripts/fetch_helm.py $(VENV)/helm
	@touch $@

demo: $(VENV)/.core
	@$(BIN)/tightship demo --template $(NAME)

test: check
	@$(BIN)/python -m pytest tests -n $(JOBS) --dist loadfile --no-loadscope-reorder

check: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-cache -q 2>/dev/null || $(BIN)/lint-imports --no-cache

fix: $(VENV)/.dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(VENV)/.dev
	@$(BIN)/python scripts/make_docs.py

sim: $(VENV)/.dev
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) --workers $(WORKERS)

chaos: $(VENV)/.dev
	@CHAOS_ALL=1 $(BIN)/python -m pytest tests/chaos

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.run

deploy-check: $(VENV)/.deploy
	@$(BIN)/python scripts/deploy_check.py --helm $(VENV)/helm/helm

lock:
	@$(BIN)/python -m pip install -q uv
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml requirements/build.in -o requirements/core.lock
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml --extra models --extra postgres --group dev requirements/build.in -c requirements/core.lock -o requirements/dev.lock
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml --extra models --extra postgres -c requirements/dev.lock -o requirements/image.lock
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--group deploy -c requirements/dev.lock -o requirements/deploy.lock

clean:
	rm -rf $(VENV) demo .pytest_cache .ruff_cache .hypothesis benchmarks/.env
