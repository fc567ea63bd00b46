# make demo    set up, run the built-in study, print where the report is
# make test    set up, pass the tests
# make check   lint, types and the fast tests
# make test-all  also the slow tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-all check format clean

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Holdfast needs Python 3.11 or newer; try: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing (once; a few minutes) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt setuptools wheel
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt \
		--no-build-isolation -e '.[train,dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/holdfast demo

test: $(STAMP)
	@$(BIN)/python -m pytest

test-all: $(STAMP)
	@$(BIN)/python -m pytest -m ''

check: $(STAMP)
	@$(BIN)/ruff format --check src tests benchmarks examples
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q -m 'not slow and not browser and not wheel'

format: $(STAMP)
	@$(BIN)/ruff check --fix -q; $(BIN)/ruff format src tests benchmarks examples

clean:
	rm -rf $(VENV) build dist *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
