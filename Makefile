# Every target sets everything up first; a second run takes that as done.
.PHONY: help setup demo test check upstream-tests package versions patches compare features fuzz soak lint \
	monitoring prometheus

PYTEST = .venv/bin/python -m pytest
# Engines use every core, so only tests without one run side by side.
WITHOUT_ENGINES = $(PYTEST) -m "not engine" --numprocesses=logical --maxprocesses=4 --dist=worksteal
COVERAGE = $(if $(CI),--cov --cov-append --cov-report=term:skip-covered)

help:
	@echo "make setup   set up .venv with vLLM's CPU build, and a small model"
	@echo "make demo    serve a real model with stock vLLM and with SARATHI, and compare"
	@echo "make check   lint, types and the tests that start no engine: the inner loop"
	@echo "make test    all tests, with Prometheus where apt-get has it; CI=true measures coverage as well"
	@echo "make fuzz    thousands of random runs of the schedulers, different ones each time"
	@echo "make soak    a million requests without a model, 2,000 streams at a time for ten minutes"
	@echo "make lint    ruff and mypy"
	@echo "make monitoring   the table of metrics and the Grafana dashboard, from the code"
	@echo "make prometheus   a real Prometheus scrapes a real server: all of the dashboard has data"
	@echo "make package   build sdist and wheel, and test what they install"
	@echo "make features   each feature of vLLM on real engines beside stock, and the table of what works"
	@echo "make upstream-tests   vLLM's own scheduler tests, on its schedulers and on these"
	@echo "make versions   the tests that start no engine, on each supported vLLM; VERSIONS=0.33.0 chooses"
	@echo "make patches   patches/ on each vLLM that they name, and their tests; VERSIONS=0.33.0 chooses"
	@echo "make compare VLLM=0.34.0   what that vLLM changed in the code that this package relies on"

setup:
	@.ci/setup

demo: setup
	.venv/bin/python benchmarks/demo.py

test: setup
	rm -f .coverage
	-@.ci/prometheus > /dev/null # tests that need it are skipped where it cannot be had
	$(WITHOUT_ENGINES) $(COVERAGE)
	$(PYTEST) -m engine $(COVERAGE)

check: lint
	$(WITHOUT_ENGINES)

features: setup
	.venv/bin/pip install --quiet --no-deps --requirement .ci/requirements-features.txt
	FEATURES_TABLE=tests/features/README.md $(PYTEST) tests/features -m "features or not features"

monitoring: setup
	.venv/bin/python benchmarks/monitoring.py

prometheus: setup
	.ci/prometheus
	$(PYTEST) tests/engine/test_monitoring.py tests/benchmarks/test_monitoring.py

fuzz: setup
	$(PYTEST) tests/fuzz --hypothesis-profile=fuzz --timeout=0

soak: setup
	.venv/bin/python benchmarks/soak.py
	.venv/bin/python benchmarks/streams.py

upstream-tests: setup
	.venv/bin/python .ci/upstream_tests.py

package: setup
	.ci/package

versions: setup
	.venv/bin/python .ci/versions.py $(VERSIONS)

patches: setup
	.venv/bin/python .ci/patches.py $(VERSIONS)

compare: setup
	.venv/bin/python .ci/compare_vllm.py $(OLD) $(VLLM)

lint: setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
