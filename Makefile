# Both commands of the README set everything up first; a second run takes that as done.
.PHONY: help setup demo test lint

help:
	@echo "make demo   serve a real model with stock vLLM and with SARATHI, and compare"
	@echo "make test   run the tests"
	@echo "make lint   ruff and mypy"

setup:
	@.ci/setup

demo: setup
	.venv/bin/python benchmarks/demo.py

test: setup
	.venv/bin/python -m pytest --cov --cov-report=term:skip-covered

lint: setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
