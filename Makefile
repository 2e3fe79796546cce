# Every target sets itself up in .venv. Needed beforehand: Python >= 3.11, stable Rust with rustfmt and clippy, make.

PYTHON ?= python3
PYTEST_ARGS ?= -n auto
RELEASE_PYTHON ?= $(PYTHON)
RELEASE_GROUP ?= dev
RELEASE_TESTS ?= tests/test_packaging.py tests/test_docs.py tests/test_record.py tests/test_report.py tests/test_cli.py \
	tests/test_doctests.py tests/test_results.py tests/test_sweep.py tests/test_bad_input.py tests/test_man_pages.py \
	tests/test_simulator.py tests/test_notebooks.py

VENV := .venv
BIN := $(VENV)/bin
# One profile serves tests, lint and demo, so that a clone compiles the core and its dependencies once: dev-opt is fast
# enough for the heavy differential loops and keeps the debug assertions and overflow checks that should watch them.
# Only benchmarks need (and get) the release build.
PROFILE := dev-opt
DEV := $(VENV)/.dev
DOCS := $(VENV)/.docs
CORE := $(VENV)/.core-$(PROFILE)
CORE_RELEASE := $(VENV)/.core-release
RUST_SOURCES := Cargo.toml Cargo.lock $(shell find rust -type f)
BENCH_SCRIPTS := $(sort $(wildcard benches/bench_*.py))

DEMO_RECORDING := data/recordings/apache.perf.txt.zst
DEMO_KERNELS := linux-5.10 linux-6.18 consolidated

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_QUIET := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test lint scores bench docs build release lab clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(CORE) ## Compare kernels on a real recording, then hold the model against what was recorded
	$(BIN)/tlbcore compare $(DEMO_RECORDING) $(addprefix --kernel ,$(DEMO_KERNELS))
	$(BIN)/tlbcore validate $(DEMO_RECORDING) --kernel linux-6.18

# The binding has no Rust tests of its own (they would have to link an interpreter): pytest tests it through Python.
test: $(CORE) ## Run the tests of the Rust core, then those of the Python package
	cargo test --workspace --exclude tlbcore-py --profile $(PROFILE) --locked --quiet
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(CORE) ## Check formats, lints, types, import rules and the stub of the binding
	cargo fmt --all --check
	$(BIN)/python tools/check_imports.py
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest tlbcore._core
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo clippy --workspace --all-targets --locked -- -D warnings

# An output of README.md or docs/ may show what is pinned, so that comes first.
scores: $(CORE) ## Pin the scores that rose, and write every output that the documentation shows
	$(BIN)/python tools/pin_scores.py
	$(BIN)/python tools/how_true.py
	$(BIN)/python tools/shown_output.py

# Peers are measured where they are installed; BENCHMARKING.md says how.
bench: $(CORE_RELEASE) ## Run the benchmarks on a release build; figures go to target/bench too
	@mkdir -p target/bench
	@set -e; for script in $(BENCH_SCRIPTS); do echo "$$script"; \
		$(BIN)/python "$$script" --json "target/bench/$$(basename "$$script" .py).json"; done
	cargo bench -p tlbcore --bench '*' --locked

docs: $(DOCS) ## Build the documentation into docs/_build, warnings are errors
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build
	RUSTDOCFLAGS='-D warnings' cargo doc -p tlbcore --no-deps --locked --quiet

build: $(DEV) ## Build a wheel and a source distribution into dist
	$(BIN)/maturin build --release --sdist --out dist

# The wheel is built from the source distribution, elsewhere, so that both are tried, and by the interpreter that it is for: one
# wheel serves every CPython from 3.11 on, but each free-threaded one needs its own (RELEASE_PYTHON=python3.14t, and
# RELEASE_GROUP=test where some of what the other tests need has no wheel). A fresh environment has nothing else.
release: $(DEV) ## Build both, install the wheel into a fresh environment, run tests against it: RELEASE_TESTS=tests for all
	rm -rf build/release/venv build/release/sdist
	$(BIN)/maturin sdist --out build/release/sdist
	$(RELEASE_PYTHON) -m venv build/release/venv
	build/release/venv/bin/python -m pip install --upgrade 'pip>=25.1'
	build/release/venv/bin/python -m pip wheel --no-deps --wheel-dir build/release/venv/dist build/release/sdist/*.tar.gz
	build/release/venv/bin/python -m pip install --group $(RELEASE_GROUP) build/release/venv/dist/*.whl
	build/release/venv/bin/python -m pytest $(PYTEST_ARGS) $(RELEASE_TESTS)
	mkdir -p dist && cp build/release/sdist/*.tar.gz build/release/venv/dist/*.whl dist/
	@ls -l dist

# Needs packages of the system (lab/README.md), no virtual environment.
lab: ## Record a scenario on a real kernel in QEMU: SCENARIO=FILE, LAB_ARGS='--kernel-package NAME'
	$(PYTHON) -m lab run $(or $(SCENARIO),lab/scenarios) $(LAB_ARGS)

clean: ## Remove everything that was built
	rm -rf $(VENV) dist build docs/_build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f python/tlbcore/_core.*.so
	find python tests tools benches lab -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	cargo clean

$(DEV): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("tlbcore needs Python >= 3.11, found " + sys.version.split()[0] \
		if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade 'pip>=25.1' # the first that knows --group
	$(BIN)/python -m pip install --group dev
	@touch $@

$(DOCS): $(DEV)
	$(BIN)/python -m pip install --group docs
	@touch $@

# Both profiles install the same file, so each build takes the other's stamp away.
$(CORE) $(CORE_RELEASE): $(VENV)/.core-%: $(DEV) $(RUST_SOURCES)
	@rm -f $(CORE) $(CORE_RELEASE)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --quiet --profile $*
	@touch $@
