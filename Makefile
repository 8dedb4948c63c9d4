# All targets run in .venv, which the first one creates. Python 3.11 or newer, make and a package index are
# required.

PYTHON ?= python3
IMAGE ?= tests/pictures/seven.png
DATA ?= $(HOME)/.cache/softmax
MODELS ?= model.npz
BIG ?= $(HOME)/.cache/softmax/mnist8m
BASELINE ?=

BIN := .venv/bin
SOFTMAX := $(BIN)/softmax

.DEFAULT_GOAL := help
.PHONY: help install download train eval predict report check lint readme test test-floors browser-test soak mutants coverage bench pictures-bench cluster-bench clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

install: .venv/installed  ## create .venv and install softmax into it

download: .venv/installed  ## download MNIST into the user's cache
	$(SOFTMAX) download

train: .venv/installed  ## get MNIST (or use the bundled sample), train and evaluate a model
	$(SOFTMAX) train
	$(SOFTMAX) eval
	@printf '\nNext:\n'
	@printf '  %s\n' \
		'$(SOFTMAX) predict $(IMAGE) --show' \
		'$(SOFTMAX) eval --split validation' \
		'$(SOFTMAX) train --config accurate'

eval: .venv/installed  ## evaluate the model in model.npz
	$(SOFTMAX) eval

predict: .venv/installed  ## classify a picture: make predict IMAGE=digit.png
	$(SOFTMAX) predict '$(IMAGE)' --show

report: .venv/installed-report  ## write report.html about the model in model.npz
	$(SOFTMAX) report

check: lint test  ## lint, types and tests; required before a commit

lint: .venv/installed-dev  ## formatting, lint and types alone
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

readme: .venv/installed-dev  ## regenerate the command help in README.md
	$(BIN)/cog -r README.md

test: .venv/installed-dev  ## the tests alone
	$(BIN)/pytest

test-floors: .venv-floors/installed  ## the tests with the lowest declared versions of all run-time packages
	.venv-floors/bin/pytest

browser-test: .venv/installed-browser tests/browser/node_modules  ## test the report in a browser; needs Chromium and npm
	$(BIN)/pytest --override-ini addopts='-q --strict-markers' tests/browser

soak: .venv/installed-dev  ## the long variants of the tests that damage files and kill processes
	SOFTMAX_SOAK=1 $(BIN)/pytest -rP tests/faults tests/test_checkpoint.py tests/test_pictures_read.py tests/test_durability.py

mutants: .venv/installed-dev  ## mutation testing of the modules that damage would hurt most (a quarter of an hour)
	$(BIN)/python scripts/mutants.py

coverage: .venv/installed-dev  ## lines and branches that the tests run
	$(BIN)/pip install --quiet --disable-pip-version-check pytest-cov
	$(BIN)/pytest --cov softmax_cli --cov-branch --cov-report term:skip-covered --cov-fail-under 95

bench: .venv-bench/installed  ## compare with other trainers (half an hour): make bench DATA=folder BASELINE=softmax
	.venv-bench/bin/python -m benchmarks --data '$(DATA)' $(if $(BASELINE),--baseline '$(BASELINE)')

pictures-bench: .venv/installed-dev  ## accuracy by kind of picture: make pictures-bench DATA=folder MODELS='a.npz b.npz'
	OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/pictures.py --data-dir '$(DATA)' $(MODELS)

cluster-bench: .venv/installed-dev  ## passes over 8.1 million images on a cluster: make cluster-bench BIG=folder (6.4 GB)
	OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/cluster.py --mnist '$(DATA)/mnist' --big '$(BIG)'

clean:  ## remove all environments and caches, but no models
	rm -rf .venv .venv-bench .venv-floors tests/browser/node_modules .mypy_cache .pytest_cache .ruff_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "softmax needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.venv/installed-report: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[report]'
	@touch $@

.venv/installed-browser: .venv/installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[browser]'
	@touch $@

tests/browser/node_modules: tests/browser/package.json
	npm install --prefix tests/browser --no-package-lock --ignore-scripts --no-audit --no-fund --silent
	@touch $@

.venv-floors/installed: pyproject.toml scripts/floors.py
	$(PYTHON) -m venv .venv-floors
	.venv-floors/bin/python scripts/floors.py > .venv-floors/floors.txt
	.venv-floors/bin/pip install --quiet --disable-pip-version-check --constraint .venv-floors/floors.txt --editable '.[dev]'
	@touch $@

.venv-bench/installed: pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@
