# make demo   the whole way on real data (DATA=/path/to/folder: on your own class folders)
# make test   lint, types and all tests
# make fast   lint, types and the tests that take under a minute in all
# make configs  two training steps of every config on small images, about 15 minutes
# make bench  measure speed and memory, write benchmarks/README.md
# make faults  kill, fill, damage: what is lost? writes docs/reliability.md, takes up to 45 minutes
# make browser  open a report and the app in headless Chromium, without a network; skipped where there is none
# make notebooks  run the notebooks of examples/ on the digits, a few minutes
# make outputs  run the commands that pages of docs/ show, and paste what they print
# make site   the pages of docs/ as a site that needs no network, in site/
# make release  build the package, and try wheel and source in empty environments: needs a network, 8 GB, about half an hour
# make docs   write what is generated: MODEL_CARD.md, docs/evidence.md, docs/choosing.md, docs/heads.md, configs/paper

PYTHON ?= python3
BIN = .venv/bin
READY = .venv/.ready
# Rooms whose tests take seconds; test_dropcov.py starts further processes.
FAST = $(wildcard tests/test_house.py tests/test_errors.py tests/test_docs*.py) tests/functional tests/analysis \
	$(addprefix tests/heads/,test_base.py test_golden.py) $(addprefix tests/models/,test_weights.py test_preprocessing.py) \
	$(addprefix tests/data/,test_base.py test_folder.py test_transforms.py) tests/training/test_optimizers.py \
	$(addprefix gcpzoo/,functional heads blocks analysis errors.py paths.py)
SLOW = tests/functional/test_dropcov.py

.PHONY: demo test fast lint configs bench faults browser notebooks outputs docs site release clean help

demo: $(READY)
	$(BIN)/gcpzoo demo $(if $(DATA),--data "$(DATA)")

# One process a core, each with one thread: threads of several processes would wait for each other.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto

fast: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto $(FAST) $(addprefix --ignore=,$(SLOW))

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

configs: $(READY)
	GCPZOO_ALL_CONFIGS=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n auto tests/cli/test_configs.py

bench: $(READY)
	GOMP_SPINCOUNT=1000 $(BIN)/python benchmarks/heads.py
	$(BIN)/python benchmarks/input_pipeline.py
	$(BIN)/python benchmarks/roots.py
	$(BIN)/python benchmarks/shards.py
	GOMP_SPINCOUNT=1000 $(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/start_up.py
	$(BIN)/python benchmarks/busy.py
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/triton_newton_schulz.py
	$(BIN)/python benchmarks/report.py

faults: $(READY)
	$(BIN)/python benchmarks/faults

browser: $(READY)
	GCPZOO_SCREENSHOTS=docs/screenshots $(BIN)/pytest tests/browser

notebooks: $(READY)
	$(BIN)/python examples/notebooks/run.py

outputs: $(READY)
	$(BIN)/python docs/make_outputs.py

docs: $(READY)
	$(BIN)/gcpzoo card
	$(BIN)/python docs/make_evidence.py
	$(BIN)/python docs/make_heads.py
	$(BIN)/python docs/make_configs.py

# Strict: a link that leads nowhere, a page that is in no menu or a formula that cannot be read stops it.
site: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean
	@echo "open site/index.html"

release: $(READY)
	$(BIN)/python scripts/try_release.py

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

# The environment is made once, and updated when the requirements change.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gcpzoo needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	@echo 'installing into .venv, which takes some minutes and about 7 GB'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv runs build dist site
