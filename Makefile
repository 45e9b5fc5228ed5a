# make quickstart   create the environment and run the main job
# make test         create the environment if need be, check style and types, run the default tests
# make quick        tests of pure logic, without Ray and models, in under a minute
# make page         check and bundle the page of `curate browse`, web/ to curate/browse/static/: the one thing that needs node
# make docs         the documentation site, in build/docs; a warning is an error
# make scale        whole runs of 10,000, 100,000 and 1,000,000 tiny pictures beside a bare loop: an hour, 25 GB
# make peers        install img2dataset and data-juicer in environments of their own, for benchmarks/peers.py
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
OUT ?= build/quickstart
# a file of tests on one of both processes, in order: its builds are made once, and none waits for the other's
SPREAD := -n 2 --dist loadfile --no-loadscope-reorder

# a run has a dozen processes that import the package, and a test many runs: from compiled files
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test quick page docs check long bench scale peers clean

$(VENV)/.ready: pyproject.toml constraints.txt requirements-nodeps.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"curate needs Python 3.11 or newer, this is {v.major}.{v.minor}; say make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=24'
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[embedded,demo,train,litert,dev,docs]'
	$(BIN)/pip install --quiet --no-deps -r requirements-nodeps.txt
	touch $@

quickstart: $(VENV)/.ready
	$(BIN)/curate run pipelines/quickstart.yaml --out $(OUT)

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: check
	@command -v chromium > /dev/null || echo 'There is no chromium: the tests of the page of `curate browse` are skipped. On Debian: apt-get install chromium'
	$(BIN)/python -m pytest $(SPREAD)

QUICK := tests/schema tests/decide tests/shards tests/test_rooms.py --ignore tests/decide/test_engines.py \
	$(addprefix --ignore tests/shards/,test_loader.py test_stateful_loader.py test_data_parallel.py)

quick: $(VENV)/.ready
	$(BIN)/python -m pytest $(SPREAD) $(QUICK)

page:
	cd web && npm ci && npm run check && npm run build

docs: $(VENV)/.ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

long: $(VENV)/.ready
	$(BIN)/python -m pytest -m long

bench: quickstart
	$(BIN)/python benchmarks/stages.py $(OUT)

scale: $(VENV)/.ready
	$(BIN)/python benchmarks/scale.py

peers: $(VENV)/.ready
	$(BIN)/python benchmarks/peers.py --install

clean:
	rm -rf build $(VENV)
