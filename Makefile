# `make demo` and `make test` do all set-up themselves: a .venv with pinned versions. Compiling every module of every package
# would take longer than installing them; Python compiles what is imported.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
TRITON := .venv/.triton

.PHONY: demo test test-fast install lint bench docs clean

demo: install
	$(BIN)/layerfreq demo

test: install $(TRITON)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

# Under a minute on two cores: one case of each test, in most rooms. Neither pages, groups of processes, kills and documentation, nor
# what trains networks (advice, experiments, relearn), imports other frameworks (integrations) or is slow by itself.
test-fast: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -q --one-case \
	  -m "not (browser or cluster or docs or kill or ranks or slow)"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright src

bench: install
	$(BIN)/layerfreq bench

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[all,docs,dev]'
	touch $@

# Where there is no GPU, the cuda engine's tests run in Triton's interpreter. 1 GB on disk, on Linux alone. PyTorch's builds for CUDA
# pin the version of it, so that constraints do not.
$(TRITON): $(STAMP)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[cuda]' && touch $@ \
	  || echo "no Triton: the tests that need it are left out, and named"

clean:
	rm -rf .venv site
