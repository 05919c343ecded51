# Every target sets up .venv by itself: Python 3.11 to 3.13, git and make are all that is needed.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.synced
DEMO := demo
# Processes that run tests. Two, as CI has two cores, for each takes about 1 GiB and what it starts as much again.
JOBS ?= 2
# A file's tests stay together, as they share what they made; files begin in the order they are collected in.
PYTEST := $(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
UV := env -u PYTHONDONTWRITEBYTECODE -u VIRTUAL_ENV UV_COMPILE_BYTECODE=1 \
	UV_PROJECT_ENVIRONMENT=.venv UV_PYTHON=$(BIN)/python UV_PYTHON_DOWNLOADS=never $(BIN)/uv

.PHONY: help setup demo test check format bench docs

help:
	@echo "make demo    search on handwritten digits, export the model, classify one image"
	@echo "make test    run the tests, two at a time; JOBS=4 for four"
	@echo "make check   what CI runs: linters, types, layers, tests"
	@echo "make format  format the code and apply safe fixes"
	@echo "make bench   measure beside what people write by hand; BENCH=--quick for a look"
	@echo "make docs    write what is generated, and build the documentation to site/"
	@echo "make setup   only set up .venv"

setup: $(READY)

$(READY): pyproject.toml $(wildcard plugins/*/pyproject.toml)
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; found none of them: \
	install one, or name it with make PYTHON=/path/to/python." >&2; exit 1; }
	@echo "Setting up .venv; the first time this downloads PyTorch and TensorFlow and takes some minutes."
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(UV) sync --inexact
	@touch $@

# A study and a cache of its own, so that the demo always starts from nothing.
demo: export AUTOML_TL_CACHE := $(CURDIR)/$(DEMO)/cache
demo: $(READY)
	rm -rf $(DEMO)
	@printf '\n== Search: handwritten digits, the backbone that ships, at most 12 trials or 90 s\n'
	$(BIN)/automl-tl search digits --study $(DEMO)/digits --backbone torch/tiny \
		--set flip=false --trials 12 --time 90s --seed 0
	@printf '\n== Export: one ONNX file, proved equal to the trained model\n'
	$(BIN)/automl-tl export $(DEMO)/digits -o $(DEMO)/digits.onnx
	@printf '\n== Predict: an image of the test split, which the search never saw (CLASS/FILE)\n'
	$(BIN)/automl-tl predict $(DEMO)/digits.onnx $(DEMO)/cache/datasets/digits-*/$$( \
		awk -F, '$$3 == "test" { print $$1; exit }' $(DEMO)/digits/split.csv)

test: $(READY)
	$(PYTEST)

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

bench: $(READY)
	$(BIN)/python -m benchmarks $(BENCH)

docs: $(READY)
	$(BIN)/python docs/generate.py
	$(BIN)/zensical build --clean --strict
	@echo "Open site/index.html; $(BIN)/zensical serve has the search too."

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
