# `make demo` and `make test` set everything up on a fresh machine; the other targets are their parts.
# System packages (Debian names): python3-venv (3.11 or newer), gcc, libssl-dev, libffi-dev. Optional: nodejs and npm for
# the development chain, golang-go and golang-golang-x-mod-dev for one test.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
ANVIL := .tools/node_modules/.bin/anvil

.PHONY: setup demo test lint types contracts check docs bench anvil clean

# The development chain is optional: where npm is missing or has no network, everything else is set up all the same.
setup: $(STAMP)
	@test -x $(ANVIL) || { command -v npm >/dev/null && $(MAKE) --no-print-directory anvil; } || \
	  echo "no development chain (it needs nodejs and npm): nothing is anchored, and tests of contracts are skipped"

# zksk and petlib carry pins that no current pip can resolve (msgpack, bplib): they are installed by name, without
# their dependency lists, after what they really import. petlib compiles against libssl and libffi. crypten asks for a
# defunct package and for torchvision; what it really imports is the extra `mpc`.
$(STAMP): pyproject.toml Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 1; }
	@printf '#include <openssl/ssl.h>\n#include <ffi.h>\n' | $${CC:-gcc} -E - >/dev/null 2>&1 || \
	  { echo "missing: a C compiler or headers. On Debian: apt-get install python3-venv gcc libssl-dev libffi-dev"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[all,dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check cffi pycparser "msgpack<1" attrs future setuptools wheel
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation petlib==0.0.45
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps zksk==0.0.2
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps crypten==0.4.1
	touch $(STAMP)

demo: setup
	$(BIN)/sealproof demo

test: setup
	$(BIN)/python -m pytest -n auto

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports

check: lint types contracts test

# The development chain that the tests of the contracts run on, from npm. Without it those tests are skipped.
anvil: $(ANVIL)

$(ANVIL):
	npm install --prefix .tools --no-save --no-audit --no-fund --loglevel=error @foundry-rs/anvil@1.7.1

# Rewrites the generated parts of the documents: tables, examples, line counts, the README's outputs.
docs: $(STAMP)
	$(BIN)/python docs/tools/line_counts.py
	$(BIN)/python docs/tools/generate.py
	$(BIN)/python docs/tools/readme.py --write
	$(BIN)/python docs/tools/contracts.py

bench: setup
	$(BIN)/sealproof bench ledger
	$(BIN)/sealproof bench evm
	$(BIN)/sealproof bench mpc
	$(BIN)/sealproof bench latency
	$(BIN)/sealproof bench overhead

clean:
	rm -rf $(VENV) demo-out build dist *.egg-info
