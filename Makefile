# Every target makes its own .venv; nothing but Python 3.11+ and make is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# torch comes first and alone, so that no later requirement can replace it with another build.
TORCH := $(shell grep '^torch==' constraints.txt)
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install --quiet
PROMPT ?= a red ball rolls to the right

.PHONY: demo test test-all check format bench install clean

demo: $(VENV)/.core  ## install, then make a clip from PROMPT
	$(BIN)/mutoscope generate "$(PROMPT)"

test: $(VENV)/.dev  ## install, then the fast tests
	$(BIN)/pytest

test-all: $(VENV)/.dev  ## the fast and the slow tests
	$(BIN)/pytest -m ""

check: $(VENV)/.dev  ## format, lint, strict types, import layers
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

bench: $(VENV)/.dev  ## every benchmark, results to the terminal
	for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

install: $(VENV)/.core

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Mutoscope needs Python 3.11 or newer; set PYTHON=/path/to/python3.11."; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(PIP) "$(TORCH)"
	$(PIP) --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV)
