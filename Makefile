# Every target sets itself up: nothing needs to be done before `make demo` or `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export FL_DATA_DIR ?= $(if $(wildcard ../shared/data),../shared/data,)

.PHONY: demo demo-phone web performance gpu peers compiled test check lint types imports links docs codec-accuracy results noise results-quick agree virtual clean fuzz hostile

# torch and torchvision are named together so that pip resolves them as one pair. pip would compile their 18,000 modules
# on one core; what no Python of today can read among them is passed over, as it does.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@

demo: $(VENV)/installed
	$(BIN)/fl-bench demo

# Two phones played by Chromium, eight by Python, and pictures of the page in demo-report/.
demo-phone: $(VENV)/installed
	$(BIN)/python -m lab browsers

# The page that makes phones of browsers, and what the live page takes from the npm registry; the result is committed,
# so that only who changes it needs node.
web:
	cd web && npm ci --no-fund --no-audit && npm run --silent types && npm run --silent build

# What the suite's first processes would all begin with, and with PYTHONDONTWRITEBYTECODE each of a thousand: our
# modules are compiled here, once, and the passes that phones train by.
compiled: $(VENV)/installed
	$(BIN)/python -m compileall -q bandwidth_sim edge_client featherfed fl_bench gateway lab server
	$(BIN)/python -c 'from featherfed.learning import fast; fast.passes()'

# A test often waits, for a link or a deadline: three workers keep two cores busy.
test: compiled
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# Writes the tables of docs/LINKS.md: ten minutes on a machine that does nothing else.
links: $(VENV)/installed
	$(BIN)/python -m lab links --write docs/LINKS.md
	$(BIN)/python -m lab links --load --write docs/LINKS.md
	$(BIN)/python -m lab links --agreement --write docs/LINKS.md

# Some ten minutes: phones and servers killed, transfers cut at many bytes; writes its figures into the page.
chaos: $(VENV)/installed
	$(BIN)/python -m lab chaos play tests/chaos/long/*.toml --docs docs/RELIABILITY.md
	$(BIN)/python -m lab chaos durability --docs docs/RELIABILITY.md

# Writes the tables of docs/PERFORMANCE.md: six minutes on a machine that does nothing else.
performance: $(VENV)/installed
	PATH=$(BIN):$$PATH $(BIN)/python -m lab performance --write docs/PERFORMANCE.md

# Writes its table of the GPU, and runs the tests that skip without one: two minutes, where torch sees a GPU.
gpu: $(VENV)/installed
	$(BIN)/python -m lab gpu --write docs/PERFORMANCE.md

# Writes the tables of docs/PERFORMANCE.md beside Flower, in an environment that it makes: ten minutes, as root.
peers: $(VENV)/installed
	$(BIN)/python -m lab peers --write docs/PERFORMANCE.md

# Writes the tables of docs/DIFFERENTIAL_PRIVACY.md, beside pfl-research: two hours on two cores.
NOISED := dp_iid dp_iid_4 dp_iid_2 dp_distributed dp_distributed_4 dp_distributed_2 dp_hundred dp_hundred_4 dp_hundred_2
noise: $(VENV)/installed
	for name in $(NOISED); do \
		$(BIN)/fl-bench run scenarios/$$name.toml --virtual --out results --resume || exit 1; \
	done
	$(BIN)/python -m lab dp-peers $(addprefix results/,$(NOISED)) --pfl auto --write docs/DIFFERENTIAL_PRIVACY.md
	$(BIN)/python -m lab dp-cost --phones 10 --rounds 20 --turns 3 --write docs/DIFFERENTIAL_PRIVACY.md

# The documentation as a site, in site/: ten seconds. A link that leads nowhere fails it.
$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

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
	$(BIN)/python -m lab hostile --write docs/RELIABILITY.md

check: lint types imports test

# A quarter of an hour on two cores; finished runs are not run again.
codec-accuracy: $(VENV)/installed
	$(BIN)/fl-bench run scenarios/codec_accuracy.toml --out results --resume
	$(BIN)/python -m lab codec --accuracy results/codec_accuracy --write docs/CODECS.md

# The scenarios of the papers (three seeds each) and our best ones (five), in virtual time. Hours on two cores; finished
# cells are not run again. With --keep `python -m lab results` writes the sections of some and keeps the others.
PAPERS := paper_structured paper_sketched paper_partitions paper_beyond
BEST := best_97 best_iid best_99 best_noniid secure_iid best_2nn best_cnn defaults
results: $(VENV)/installed
	for name in $(BEST) $(PAPERS) paper_cnn; do \
		$(BIN)/fl-bench run scenarios/$$name.toml --virtual --jobs 2 --out results --resume || exit 1; \
	done
	$(BIN)/python -m lab results $(addprefix results/,$(BEST) $(PAPERS) paper_cnn) --write docs/RESULTS.md

# The same papers with one seed and few rounds of one epoch; fails where an ordering that they claim does not hold.
results-quick: $(VENV)/installed
	rm -rf build/results-quick
	for name in $(PAPERS); do \
		$(BIN)/fl-bench run scenarios/$$name.toml --virtual --jobs 2 --out build/results-quick \
			--set rounds=6 --set epochs=1 --set seed=0 || exit 1; \
	done
	$(BIN)/python -m lab results $(addprefix build/results-quick/,$(PAPERS)) --check

# Writes the table of docs/BENCHMARKS.md: real processes beside virtual time, on a machine that does nothing else.
agree: $(VENV)/installed
	$(BIN)/python -m lab agree scenarios/agreement.toml --write docs/BENCHMARKS.md

# Writes the other one: what virtual time costs, five minutes on a machine that does nothing else.
virtual: $(VENV)/installed
	$(BIN)/python -m lab virtual --write docs/BENCHMARKS.md

clean:
	rm -rf $(VENV) build dist site *.egg-info
