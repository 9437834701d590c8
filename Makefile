# make demo   the whole way on real data (DATA=/path/to/folder: on your own class folders)
# make test   linter, types and tests
# make bench  measure speed and memory, rewrite benchmarks/README.md
# make docs   rewrite what is generated: MODEL_CARD.md, README's tables, docs/heads.md

PYTHON ?= python3
BIN = .venv/bin
READY = .venv/.ready

.PHONY: demo test bench docs clean

demo: $(READY)
	$(BIN)/gcpzoo demo $(if $(DATA),--data "$(DATA)")

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

bench: $(READY)
	$(BIN)/python benchmarks/heads.py
	$(BIN)/python benchmarks/input_pipeline.py
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/start_up.py
	$(BIN)/python benchmarks/triton_newton_schulz.py
	$(BIN)/python benchmarks/report.py

docs: $(READY)
	$(BIN)/gcpzoo card
	$(BIN)/python docs/make_results.py
	$(BIN)/python docs/make_heads.py

# The environment is made once, and again when the requirements change.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gcpzoo needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv runs build dist
