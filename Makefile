# Everything a person or CI does, each from nothing: the first target that needs it makes the virtual environment,
# builds the extension and installs the locked packages.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMPS := .stamps
RUST_SOURCES := Cargo.toml Cargo.lock $(shell find native -name '*.rs' -o -name 'Cargo.toml')
PACKAGES := mediaserver tenancy admission config vault sipbridge perf
NUMBER ?= +15550100
ASK ?= What are your opening hours on Friday?

export CARGO_NET_RETRY := 5

.PHONY: run call test lint types bench perf perf-gate schema docs clean setup rust-test py-test coverage fuzz loom address-sanitizer

run: setup  ## start the server with the demo tenants
	@$(BIN)/mediaserver serve

call: setup  ## place a call to a demo tenant, starting a server if none answers
	@$(BIN)/mediaserver call "sip:$(NUMBER)@127.0.0.1" --say "$(ASK)" --record var/call.wav --start-server

test: setup lint types rust-test py-test  ## every check and every test

setup: $(STAMPS)/packages $(STAMPS)/extension

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; assert sys.version_info[:2] == (3, 11), sys.version' \
	  || { echo "Python 3.11 is needed (found: $$($(PYTHON) --version 2>&1)); set PYTHON=/path/to/python3.11"; exit 2; }
	@command -v cargo >/dev/null || { echo "a Rust toolchain is needed: https://rustup.rs"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	mkdir -p $(STAMPS)
	touch $@

$(STAMPS)/packages: $(STAMPS)/venv requirements-bootstrap.lock requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bootstrap.lock
	$(BIN)/uv pip install --python $(BIN)/python --quiet --require-hashes -r requirements.lock
	touch $@

$(STAMPS)/extension: $(STAMPS)/packages $(RUST_SOURCES) pyproject.toml
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --locked --uv --quiet
	touch $@

lint: setup
	$(BIN)/ruff format --check $(PACKAGES) tests
	$(BIN)/ruff check $(PACKAGES) tests
	$(BIN)/lint-imports
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

types: setup
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest mediaserver._native --ignore-disjoint-bases

rust-test:
	cargo test --release --locked --workspace

# Each target for RUNS inputs, from its corpus on; what it finds goes to native/fuzz/found, what fails to native/fuzz/artifacts.
# Needs the nightly compiler (`rustup toolchain install nightly`) and `cargo install cargo-fuzz --version 0.13.2 --locked`.
# The C of libopus is built with the address sanitizer too.
RUNS ?= 100000
FUZZ_TARGETS = $(basename $(notdir $(wildcard native/fuzz/fuzz_targets/*.rs)))
SANITIZED_C := -fsanitize=address -fno-omit-frame-pointer
FUZZ = cd native && CFLAGS="$(SANITIZED_C)" cargo +nightly fuzz
HOST = $(shell rustc -vV | sed -n 's/^host: //p')

fuzz:  ## every fuzz target for RUNS inputs
	$(FUZZ) build --fuzz-dir fuzz
	@set -e; for target in $(FUZZ_TARGETS); do \
	  echo "== $$target"; mkdir -p native/fuzz/found/$$target; \
	  ( $(FUZZ) run --fuzz-dir fuzz $$target fuzz/found/$$target fuzz/corpus/$$target -- \
	    -runs=$(RUNS) -max_len=2048 -timeout=20 -print_final_stats=1 || echo "FAILED $$target" ) 2>&1 \
	  | grep -E "^FAILED|^stat::number_of_executed|panicked|^SUMMARY"; \
	  test -z "$$(ls native/fuzz/artifacts/$$target 2>/dev/null)"; done

loom:  ## every interleaving of the threads that share a playout's budget
	RUSTFLAGS="--cfg loom" cargo test --release --locked -p media --test loom --target-dir target/loom

address-sanitizer:  ## the tests around unsafe code, Rust and C, under the address sanitizer of the nightly compiler
	CFLAGS="$(SANITIZED_C)" RUSTFLAGS="-Zsanitizer=address" cargo +nightly test --locked -p opus -p counting \
	  --target $(HOST) --target-dir target/address-sanitizer --tests

# Most of the time goes to calls in real time: three processes keep two processors busy.
py-test: setup
	$(BIN)/pytest -n 3 --dist worksteal

coverage: setup  ## the Python tests, and which lines they run (half as long again)
	$(BIN)/pytest -n 3 --dist worksteal --cov --cov-report=term:skip-covered

bench: setup  ## the engine's and the pipeline's cost, as a table and in perf/results/
	$(BIN)/python -m perf.bench

perf: setup  ## the same and what takes longer: calls under load, the most that are carried, beside the stock pipeline
	$(BIN)/python -m perf.bench --long
	$(BIN)/python -m perf run --ramp 10,25,50,100,200,400 --knee --burst 50 --losses 20 --stock --results --gate

perf-gate: setup  ## a minute of calls: fails where conversations are not sound
	$(BIN)/python -m perf run --gate --short

schema: setup  ## the JSON Schema of a tenant's file, for editors
	$(BIN)/python -m config.schema > config/tenant.schema.json

docs: setup  ## the API of the packages as HTML in var/docs
	$(BIN)/pdoc --output-directory var/docs/python mediaserver admin sipbridge admission tenancy config vault
	cargo doc --locked --workspace --no-deps --quiet && mkdir -p var/docs && cp -r target/doc var/docs/rust

clean:
	rm -rf $(VENV) $(STAMPS) target var dist .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	find mediaserver -name '_native*.so' -delete
