# make demo   ask four questions of a 20-minute video (installs first; no download of weights, no GPU)
# make test   the tests
# make check  lint, types, layers, tests: what must pass before a change is submitted
# make bench  the benchmarks, each printed beside its yardstick
# make model  train the embedded model again from nothing (hours on two cores; resumable)
# make clean  remove what was built, .venv too
#
# PYTHON=... chooses the interpreter (3.11 or 3.12), VENV=... where the environment lies, ARGS=... goes to the command (bench takes none).

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.playhead-installed
# The first of these that really runs and is 3.11 or 3.12 (a version manager's stub may exist and not run).
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo $$p && break; done)
ARGS ?=

.PHONY: demo test check lint types bench model install clean
.DELETE_ON_ERROR:

demo: $(STAMP)
	$(BIN)/playhead demo $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest $(ARGS)

check: lint types test

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/basedpyright

bench: $(STAMP)
	test -d runs/bench/world || $(BIN)/playhead world make --out runs/bench/world --videos 4 --minutes 10,14 --seed 6000000
	for name in decode question engine rollout; do echo "== $$name"; $(BIN)/python -m playhead.benchmarks.$$name || exit; done
	for name in seeds crowd vote; do echo "== $$name"; $(BIN)/python -m playhead.benchmarks.$$name --data runs/bench/world || exit; done

model: $(STAMP)
	$(BIN)/python -m playhead.train $(ARGS)

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or 3.12 was found: say PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

clean:
	rm -rf $(VENV) build dist runs *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
