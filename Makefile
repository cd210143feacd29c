# Needs python3 (3.11 or later) and make, nothing else. `make help` lists what there is.

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
CODE := schemas streams daemon inferd tests bench

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-cache test-unit fuzz jobs-histories lint format typecheck coverage http-fuzz jobs-million bench bench-jobs bench-cache chaos chaos-bugs minimal-root test-pythons audit lock lock-jars clean

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.installed ## See it work: a broker, a worker, a model, real requests; stops by itself.
	@$(VENV)/bin/inferd demo

test: $(VENV)/.installed-dev ## Run every test, the delivery tests on a real Kafka included.
	@$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-cache: export INFERD_TEST_CACHE := 1
test-cache: test ## The same with the prediction cache on in every delivery test.

test-unit: $(VENV)/.installed-dev ## Run the tests that need no broker.
	@$(PY) -m pytest -m "not delivery"

fuzz: $(VENV)/.installed-dev ## Look for bytes that no decoder takes well (FUZZ_MINUTES=5 FUZZ_INPUTS= FUZZ_WORKERS=1).
	@$(PY) -m tests.fuzz

jobs-histories: $(VENV)/.installed-dev ## Run 100,000 random histories of jobs against their reference (2 to 3 minutes).
	@$(PY) -m tests.unit.streams.jobs.job_histories

lint: $(VENV)/.installed-dev ## Check style and layout of the code.
	@$(PY) -m ruff check $(CODE)
	@$(PY) -m ruff format --check $(CODE)

format: $(VENV)/.installed-dev ## Mend style and layout of the code, where that is safe.
	@$(PY) -m ruff check --fix $(CODE)
	@$(PY) -m ruff format $(CODE)

typecheck: $(VENV)/.installed-dev ## Check the types.
	@$(PY) -m mypy

coverage: $(VENV)/.installed-dev ## Run every test and show what no test reaches.
	@$(PY) -m coverage erase
	@$(PY) -m coverage run -m pytest
	@$(PY) -m coverage combine -q
	@$(PY) -m coverage report

http-fuzz: $(VENV)/.installed-dev ## Try ten thousand and more HTTP requests against what /openapi.json says.
	@$(PY) -m tests.fixtures.http_fuzz 800

jobs-million: $(VENV)/.installed-dev ## A job of a million rows while workers and the broker are killed (JOBS_ROWS).
	@$(PY) -m pytest tests/heavy/million_rows.py -s

bench: $(VENV)/.installed-dev ## Measure throughput and latency beside its peers.
	@$(PY) -m bench

bench-jobs: $(VENV)/.installed-dev ## Measure batch jobs beside bare Booster.predict.
	@$(PY) -m bench.jobs

bench-cache: $(VENV)/.installed-dev ## Measure what the prediction cache gains, how it is restored, and its policies.
	@$(PY) -m bench.cache_gain
	@$(PY) -m bench.cache_restore
	@$(PY) -m bench.cache_policies

chaos: $(VENV)/.installed-dev ## Break brokers, workers and network for CHAOS_MINUTES (10) under load; nothing may be lost.
	@$(PY) -m tests.chaos $(CHAOS)

chaos-bugs: $(VENV)/.installed-dev ## Bring in wrong behaviours one at a time; the same faults must catch each.
	@$(PY) -m tests.chaos --bugs $(CHAOS)

minimal-root: ## Run the demo and the tests in a Debian root with python3 and make alone (needs root, debootstrap).
	@tests/heavy/minimal_root.sh $(MINIMAL_ROOT)

PYTHONS ?= python3.11 python3.12 python3.13 python3.14

test-pythons: ## Run every test on each Python of PYTHONS that is installed, each in its own environment.
	@for python in $(PYTHONS); do \
		$$python -c '' 2>/dev/null || { echo "$$python is not installed"; continue; }; \
		echo "== $$($$python --version)"; \
		$(MAKE) --no-print-directory PYTHON=$$python VENV=.venv-$$(basename $$python) test || exit 1; \
	done

audit: $(VENV)/.installed-dev ## Look for known weaknesses in what is locked.
	@$(PY) -m pip_audit --strict --disable-pip --require-hashes -r requirements-dev.lock

# ---- the environment: hashed, from the lock files alone

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "inferd needs Python 3.11 or later, this is " + sys.version.split()[0] + ": make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: requirements.lock pyproject.toml | $(PY)
	@echo "installing what is in requirements.lock, once"
	@$(PY) -m pip install --quiet --require-hashes -r requirements.lock
	@$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock pyproject.toml | $(PY)
	@echo "installing what is in requirements-dev.lock, once"
	@$(PY) -m pip install --quiet --require-hashes -r requirements-dev.lock
	@$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.installed

# ---- the lock files; `make lock UPGRADE=--upgrade` takes newer versions

UPGRADE ?=
LOCK = $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-strip-extras \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock: $(VENV)/.installed-dev ## Write the lock files anew from pyproject.toml.
	@$(LOCK) pyproject.toml $(UPGRADE) --all-extras -o requirements-dev.lock
	@$(LOCK) pyproject.toml --extra broker --extra demo --extra build -c requirements-dev.lock -o requirements.lock
	@$(LOCK) pyproject.toml --extra files --extra otel -c requirements-dev.lock -o deploy/requirements.lock
	@echo hatchling | $(LOCK) - -c requirements-dev.lock -o deploy/build-requirements.lock

lock-jars: $(VENV)/.installed ## Write the lock file of the embedded Kafka's jars anew.
	@$(PY) -m inferd.daemon.broker.lock_jars

clean: ## Remove the environment and every cache in this directory.
	rm -rf $(VENV) .venv-* .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
