# Every target sets itself up: nothing needs to be done before `make demo` or `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export FL_DATA_DIR ?= $(if $(wildcard ../shared/data),../shared/data,)

.PHONY: demo web test check lint types imports links docs codec-accuracy clean fuzz hostile

# torch and torchvision are named together so that pip resolves them as one pair.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/fl-bench demo

# What the live page takes from the npm registry; the result is committed, so that only who changes it needs node.
web:
	cd web && npm ci --no-fund --no-audit && npm run --silent build

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Writes the tables of docs/LINKS.md: ten minutes on a machine that does nothing else.
links: $(VENV)/installed
	$(BIN)/fl-bench links --write docs/LINKS.md
	$(BIN)/fl-bench links --load --write docs/LINKS.md
	$(BIN)/fl-bench links --agreement --write docs/LINKS.md

# Some ten minutes: kill -9 of 100 phones and 20 servers; writes its figures into the page.
chaos: $(VENV)/installed
	$(BIN)/fl-bench chaos play tests/chaos/long.toml --docs docs/RELIABILITY.md
	$(BIN)/fl-bench chaos durability --docs docs/RELIABILITY.md

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

imports: $(VENV)/installed
	$(BIN)/lint-imports

# Long runs; each writes its last result where docs/RELIABILITY.md promises it.
fuzz: $(VENV)/installed
	FEATHERFED_FUZZ=120000 FEATHERFED_FUZZ_REPORT=docs/RELIABILITY.md $(BIN)/python -m pytest -q tests/fuzz

hostile: $(VENV)/installed
	$(BIN)/fl-bench hostile --write docs/RELIABILITY.md

check: lint types imports test

# A quarter of an hour on two cores; finished runs are not run again.
codec-accuracy: $(VENV)/installed
	$(BIN)/fl-bench run scenarios/codec_accuracy.toml --out results --resume
	$(BIN)/fl-bench codec --accuracy results/codec_accuracy --write docs/CODECS.md

clean:
	rm -rf $(VENV) build dist *.egg-info
