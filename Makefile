# make demo         set up, run the built-in study, print where the report is
# make test         set up, pass the tests
# make lint         format, lint, types
# make check        lint and the fast tests
# make models       fetch SmolLM2 (93 MB) for the tests marked `real`, which are skipped without it
# make test-all     also the slow tests
# make test-oldest  the fast tests with the oldest versions that pyproject.toml admits
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OLDEST := .venv-oldest
CODE := src tests benchmarks examples
FAST := not slow and not browser and not wheel and not real
EACH := -n auto --maxprocesses 4 --dist loadfile  # a file is one worker's

.PHONY: demo models test test-all test-oldest lint check format clean

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Holdfast needs Python 3.11 or newer; try: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing (once; a few minutes) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt setuptools wheel
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt \
		--no-build-isolation -e '.[train,dev]'
	@touch $@

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	@$(OLDEST)/bin/python -m pip install -q --disable-pip-version-check \
		-c constraints-oldest.txt -e '.[train,dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/holdfast demo

models: $(STAMP)
	@$(BIN)/python benchmarks/real/models.py smollm2

test: $(STAMP)
	@$(BIN)/python -m pytest $(EACH)

test-all: $(STAMP)
	@$(BIN)/python -m pytest $(EACH) -m '' --hypothesis-profile=thorough

test-oldest: $(OLDEST)/.installed
	@$(OLDEST)/bin/python -m pytest -q $(EACH) -m '$(FAST)'

lint: $(STAMP)
	@$(BIN)/ruff format --check -q $(CODE)
	@$(BIN)/ruff check -q
	@$(BIN)/mypy
	@MYPYPATH=src:tests $(BIN)/mypy --explicit-package-bases --follow-imports=silent $(wildcard benchmarks/*.py benchmarks/*/*.py)

check: lint
	@$(BIN)/python -m pytest -q $(EACH) -m '$(FAST)'

format: $(STAMP)
	@$(BIN)/ruff check --fix -q; $(BIN)/ruff format $(CODE)

clean:
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info src/*.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache
