# PYTHON is only used to make .venv; everything else happens in there.
PYTHON ?= python3
ROUNDS ?= 60
SECONDS ?= 60
PYTEST ?=

VENV := .venv
BIN := $(VENV)/bin
REAL := .venv-vllm
SOURCES := .vllm-sources
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# The releases that are installed; LOCK= takes the newest that pyproject.toml allows.
LOCK := .ci/requirements.txt
LOCKED = $(if $(LOCK),--constraint $(LOCK))
NEWEST := .venv-newest
LOCKER := .venv-lock

ORACLE := PYTHONPATH=tests $(BIN)/python -m oracle
ANSWERED := --python $(REAL)/bin/python --sources $(SOURCES)

.DEFAULT_GOAL := help
.PHONY: release-given help setup run test golden test-newest lock e2e ray oracle oracle-again oracle-new lint actionlint format bench hostile fuzz overhead build dist-test release-check pyz clean

help: ## List these targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: $(VENV)/.dev ## Make .venv with the project and its development tools

run: $(VENV)/.installed ## Show what arrives at a stand-in server, with and without the conditions
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/show.sh

test: $(VENV)/.dev ## Run the tests; PYTEST='-k name' adds options
	$(BIN)/pytest $(PYTEST)

golden: $(VENV)/.dev ## Record again what every sub-command says, and list what is different
	@PYTHONPATH=tests $(BIN)/python -m golden.record --renew

test-newest: ## Run the tests with the newest releases of all that is needed, not the locked ones
	rm -rf $(NEWEST)
	$(MAKE) test VENV=$(NEWEST) LOCK=

lock: ## Renew the locked releases, for every Python: what setup, run, test and lint install
	test -x $(LOCKER)/bin/uv || { $(PYTHON) -m venv $(LOCKER) && $(LOCKER)/bin/pip install --quiet uv; }
	$(LOCKER)/bin/uv pip compile --no-config --quiet --upgrade --universal --python-version 3.10 \
	  --no-annotate --custom-compile-command 'make lock' --group dev pyproject.toml -o $(LOCK)

e2e: $(VENV)/.dev $(REAL)/.installed ## Test with real vLLM (3.4 GB) and real Ray: some ten minutes
	$(BIN)/pytest -n0 -v --durations=0 tests/e2e $(PYTEST)

ray: $(VENV)/.dev ## Test with real Ray only
	$(BIN)/pytest -n0 -v tests/e2e/test_ray.py $(PYTEST)

lint: $(VENV)/.dev ## Check style, types, and which way imports go
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

actionlint: $(VENV)/.dev ## Check the workflows of CI; opt-in, installs a program built by others
	$(PIP) install --group actionlint
	$(BIN)/actionlint -shellcheck= .github/workflows/*.yml

format: $(VENV)/.dev ## Rewrite the sources in the project's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.installed ## Measure the start-up; ROUNDS=200 for quieter figures, BESIDE=EPLB-LAUNCH for another release
	$(BIN)/python benchmarks/startup.py --rounds $(ROUNDS) $(if $(BESIDE),--beside $(BESIDE))

hostile: $(VENV)/.installed ## Measure what others' processes can do to root's ps; BEFORE=FOLDER: beside that one
	$(BIN)/python benchmarks/hostile.py $(if $(BEFORE),--before $(BEFORE))

fuzz: $(VENV)/.dev ## Feed random bytes to each reader of them; SECONDS=300 of each, FUZZ='YAML unit' only these
	@PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(SECONDS) $(FUZZ)

overhead: $(VENV)/.installed ## Measure beside other launchers, into benchmarks/results and README.md
	$(BIN)/python benchmarks/overhead.py --rounds $(ROUNDS)

build: $(VENV)/.installed ## Build the sdist and the wheel into dist/
	$(BIN)/python -m hatchling build -d dist

dist-test: $(VENV)/.dev build ## Test what is in dist/, installed for each Python that is found
	$(BIN)/pytest tests/test_dist.py --release dist --timeout 600 $(PYTEST)

release-check: ## Check that TAG=vX.Y.Z is the version of the sources and of the changelog
	@grep -qxF "__version__ = \"$${TAG#v}\"" eplb_launch/_version.py && \
	  grep -qF "## [$${TAG#v}] - " CHANGELOG.md || \
	  { echo "$$TAG: not what eplb_launch/_version.py and CHANGELOG.md say" >&2; exit 1; }

pyz: ## Build dist/eplb-launch.pyz, the launch as one file, and a ConfigMap with it
	@$(PYTHON) tools/single_file.py dist

release-given:
	@expr "$(VLLM)" : '[0-9][0-9]*\.[0-9][0-9]*\.[0-9][0-9a-z.+]*$$' > /dev/null || \
	  { echo "which release? VLLM=X.Y.Z" >&2; exit 2; }

oracle: release-given $(VENV)/.dev $(REAL)/.installed ## Compare with real vLLM and keep rows: VLLM=X.Y.Z; ROWS=50000 keeps none
	@$(ORACLE) release $(VLLM) $(ANSWERED) $(if $(ROWS),--rows $(ROWS))

oracle-again: release-given $(VENV)/.dev $(REAL)/.installed ## Ask real vLLM again for the rows that are kept: VLLM=X.Y.Z
	@$(ORACLE) again $(VLLM) $(ANSWERED)

oracle-new: $(VENV)/.dev ## List the vLLM releases that have no rows yet
	@$(ORACLE) new

clean: ## Remove the environments, dist/ and all caches
	rm -rf $(VENV) $(NEWEST) $(LOCKER) $(REAL) $(SOURCES) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The script is copied on installation, also on an editable one. Without isolation, as pip would put
# the newest build backend into an isolated environment.
$(VENV)/.installed: pyproject.toml eplb_launch/bin/eplb-launch $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install $(LOCKED) hatchling editables
	$(PIP) install $(LOCKED) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) install $(LOCKED) --upgrade 'pip>=25.1'
	$(PIP) install $(LOCKED) --group dev
	@touch $@

# Real vLLM for CPUs, 3.4 GB: only the opt-in targets need it.
$(REAL)/.installed: tests/e2e/install_vllm.py
	$(PYTHON) tests/e2e/install_vllm.py $(REAL)
	@touch $@
