# `make demo` and `make test` do all their own set-up in .venv; nothing else is needed but Python 3.11+.
PYTHON ?= python3
# Asked for by its exact version, PyTorch comes as the build that suits the machine's package index.
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)
BIN := .venv/bin

.PHONY: demo test test-fast lint docs package benchmark clean

demo: .venv/user
	$(BIN)/python examples/demo.py

test: .venv/developer
	$(BIN)/pytest -n 2

test-fast: .venv/developer
	$(BIN)/pytest -n 2 -m 'not slow'

lint: .venv/developer
	$(BIN)/ruff check src tests examples
	$(BIN)/ruff format --check src tests examples
	$(BIN)/mypy

docs: .venv/documentation
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --conf-dir docs . build/site
	@echo "build/site/index.html"

package: .venv/developer
	$(BIN)/python -m build --no-isolation --outdir build/dist

benchmark: .venv/user
	$(BIN)/datacondense benchmark

.venv/user: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/developer: .venv/user
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv/documentation: .venv/user
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache .hypothesis
