# Needs Python >= 3.11, make and a package registry; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test lint types unit site lock clean

setup: $(VENV)/.installed

# uv installs in a minute what takes pip several; it lives in the environment it fills. Compiling to bytecode here
# saves every command's first start half of its time, also where Python may not write its own cache.
$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed; set PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirements requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

demo: setup
	$(BIN)/twofold demo --out demo

test: lint types unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

# Two at a time, each on one core: the tests are many and small. Files go out by name, for the last ones are short; of
# itself it would keep files of few tests for the end, and those take longest.
unit: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The documentation as pages, in site/index.html; a link that leads nowhere is an error.
site: setup
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b dirhtml docs site

# A plain name==version list for every platform, without the address of any index.
lock:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --extra dev pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) demo site
