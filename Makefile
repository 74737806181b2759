# The only task runner. `make help` lists the targets; every target sets up .venv first.
# Knobs: PYTHON (the interpreter .venv is made from), ARGS (handed on to pytest or a benchmark).
# `make vllm` makes .venv-vllm: vLLM needs other versions of transformers than we do.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FASTSLOW := $(BIN)/python -m fastslow
CONFIGS = $(sort $(wildcard configs/*/*.yaml))

# The stamp's name carries what was installed; it is written last, so an interrupted set-up has none.
STAMP := $(VENV)/stamp-$(shell cat pyproject.toml constraints.txt | cksum | tr -d ' ')
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet --progress-bar off -c constraints.txt

export TOKENIZERS_PARALLELISM := false

# Tests load nothing from a hub, and run two processes of one thread each. TRL imports no MLflow,
# which only logging of its own needs, and which a process that trains would start later for.
TEST_ENV := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 OMP_NUM_THREADS=1 DISABLE_MLFLOW_INTEGRATION=TRUE
PYTEST := $(TEST_ENV) $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup docs vllm demo test unit check smoke engines bench soak fmt clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## Make .venv with the pinned packages (minutes and 2.2 GB, once)

$(STAMP):
	@command -v $(PYTHON) >/dev/null || { echo "setup: $(PYTHON) was not found. Install Python 3.11 or newer, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"setup: Python 3.11 or newer is needed, {sys.executable} is {v[0]}.{v[1]}. Name another one: make setup PYTHON=/path/to/python3")'
	@ls $(VENV)/stamp-* >/dev/null 2>&1 || rm -rf $(VENV)
	@rm -f $(VENV)/stamp-*
	@echo "setup 1/4: virtual environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setup 2/4: PyTorch"
	@$(PIP) torch==$$(sed -n 's/^torch==//p' constraints.txt)
	@echo "setup 3/4: the other packages"
	@$(PIP) -e '.[dev]'
	@echo "setup 4/4: checking that they fit together"
	@$(BIN)/python -m pip --disable-pip-version-check check
	@touch $@
	@echo "setup: done"

DOCS_STAMP := $(VENV)/docs-$(shell cat pyproject.toml constraints.txt | cksum | tr -d ' ')

# Zensical reads one folder, so what the pages show of kept runs is copied next to them.
docs: $(DOCS_STAMP) ## Build the documentation site in build/site; a broken link fails
	@rm -rf build/docs build/site && mkdir -p build && cp -R docs build/docs
	@sed 's|](\.\./runs/|](runs/|g' docs/results.md > build/docs/results.md
	@tar -cf - $$(find runs/reference -name report.md -o -name ablation.md -o -name '*.svg') | tar -xf - -C build/docs
	@$(BIN)/zensical build --strict --clean
	@echo "docs: build/site/index.html"

$(DOCS_STAMP): $(STAMP)
	@rm -f $(VENV)/docs-*
	@$(PIP) -e '.[dev,docs]'
	@touch $@

VLLM_STAMP := .venv-vllm/stamp-$(shell cat constraints-vllm.txt | cksum | tr -d ' ')

vllm: $(VLLM_STAMP) ## Make .venv-vllm with vLLM for this machine's CPU (minutes and 3.4 GB, once)

$(VLLM_STAMP):
	@command -v $(PYTHON) >/dev/null || { echo "vllm: $(PYTHON) was not found. Install Python 3.11 or newer, or name one: make vllm PYTHON=/path/to/python3" >&2; exit 2; }
	@rm -rf .venv-vllm
	@echo "vllm 1/2: virtual environment in .venv-vllm"
	@$(PYTHON) -m venv .venv-vllm
	@echo "vllm 2/2: vLLM and what it needs"
	@.venv-vllm/bin/python -m pip --disable-pip-version-check --no-input install --quiet --progress-bar off --no-deps -r constraints-vllm.txt
	@.venv-vllm/bin/python -c 'import vllm.version'
	@touch $@
	@echo "vllm: done"

demo: $(STAMP) ## Train the three-task sequence on a real model, end with the report (10 minutes)
	@$(FASTSLOW) demo

# Slow files come first and quick ones last, so that neither process ends long before the other.
test: $(STAMP) ## Unit, contract and integration tests (15 minutes at most)
	@$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder tests/integration tests/contracts tests/unit $(ARGS)

unit: $(STAMP) ## Unit tests alone (60 seconds at most)
	@$(PYTEST) -n 2 --dist loadfile tests/unit $(ARGS)

check: $(STAMP) ## Format, lint, types, import layers, and every configuration file
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/python -m mypy
	@$(BIN)/lint-imports
	@$(TEST_ENV) $(FASTSLOW) check $(CONFIGS)

smoke: $(STAMP) ## Tests with real weights; skipped without FASTSLOW_MODEL or the fetched model
	@$(TEST_ENV) $(BIN)/python -m pytest tests/smoke $(ARGS)

bench: $(STAMP) ## Run every module of benchmarks/, or one: make bench NAME=trie
	@found=0; for file in benchmarks/$(or $(NAME),[a-z]*).py; do \
	  [ -e "$$file" ] || continue; found=1; name=$$(basename "$$file" .py); \
	  echo "== benchmarks.$$name"; $(BIN)/python -m benchmarks.$$name $(ARGS) || exit 1; \
	done; [ $$found = 1 ] || echo "bench: no module benchmarks/$(or $(NAME),*).py"

engines: $(STAMP) ## Tests with vLLM, Ray, PostgreSQL and two processes; each skipped where one is absent
	@$(PYTEST) tests/engines $(ARGS)

soak: $(STAMP) ## The kill test and the fuzzers at length (an hour at most); see docs/trust.md
	@[ ! -e benchmarks/kill_resume.py ] || $(TEST_ENV) $(BIN)/python -m benchmarks.kill_resume --kills 25
	@$(TEST_ENV) $(BIN)/python -m benchmarks.hostile --configs 10000 --data 2000 --folders 2000 $(ARGS)

fmt: $(STAMP) ## Format the code and apply the safe lint fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## Remove .venv and every cache; runs stay
	@rm -rf $(VENV) .venv-vllm .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist build
	@find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
