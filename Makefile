# `make demo` and `make test` set everything up by themselves, in .venv.
PYTHON ?= python3
BIN := .venv/bin
# Two workers: the tests use one thread each. Files in the order of tests/conftest.py: the longest ones first
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# Installs the versions of constraints.txt; Python compiles what is imported
INSTALL := $(BIN)/pip install --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: demo test test-slow test-gpu test-oldest install pytest coverage format lint type commit-checks docs build release-check clean

.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) -q torch==2.13.0
	$(INSTALL) -q -e ".[dev]"
	touch $@

install: .venv/.installed

# Train MIRL through the zoo, evaluate it, and draw what happened into demo/
demo: install
	$(BIN)/python examples/demo.py

test: install
	$(MAKE) pytest

test-slow: install
	$(PYTEST) -m slow

# On a machine with a GPU, which the other tests do not see
test-gpu: install
	$(BIN)/python -c "import torch; assert torch.cuda.is_available(), f'torch {torch.__version__} finds no GPU'"
	$(PYTEST) -m gpu

# With the oldest versions that pyproject.toml allows. TORCH replaces the version of torch, of which few have CPU builds
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	sed -e "" $(if $(TORCH),-e "s/^torch==.*/torch==$(TORCH)/") constraints-oldest.txt > .venv-oldest/constraints.txt
	.venv-oldest/bin/pip install --disable-pip-version-check -q -c .venv-oldest/constraints.txt torch
	.venv-oldest/bin/pip install --disable-pip-version-check -q -c .venv-oldest/constraints.txt -e ".[test]"
	.venv-oldest/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

pytest:
	$(PYTEST) -m "not slow"

# Statements and branches that the tests reach; child processes are not counted
coverage:
	$(PYTEST) -m "not slow" --cov --cov-report term

format:
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type:
	$(BIN)/mypy

commit-checks: format lint type pytest

# The site, in an environment of its own. DOCS_EXECUTE=off leaves out the notebooks
docs: .venv-docs/.installed
	.venv-docs/bin/python -m sphinx -W --keep-going -b html docs docs/_build/html

.venv-docs/.installed: pyproject.toml constraints.txt
	test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --disable-pip-version-check -c constraints.txt -q torch==2.13.0
	.venv-docs/bin/pip install --disable-pip-version-check -c constraints.txt -q -e ".[docs]"
	touch $@

build: install
	$(BIN)/python -m build

# What must hold before a release; .ci/release_check says what
release-check:
	.ci/release_check

clean:
	rm -rf .venv .venv-docs .venv-oldest docs/_build build dist .mypy_cache .pytest_cache .ruff_cache
