# `make help` lists the targets.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CARGO ?= cargo
PYTHON ?= python3
VENV := .venv
VENV_READY := $(VENV)/.ready
FILES ?= examples/basic/basic.yaml
ARGS ?=
FUZZ_SECONDS ?= 60
CHAOS_SEEDS ?= 20
DENY_VERSION := 0.20.2
DOCFLAGS := -D warnings

say = @printf '\033[1m== %s\033[0m\n' "$(1)"

.PHONY: help
help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  make run FILES='a.yaml b.yaml' ARGS='--listen http=8080'   other resources, other flags"

.PHONY: run
run: ## Build and run the gateway of examples/basic on this machine (Ctrl-C ends it)
	$(call say,building aigw; the first time takes a few minutes)
	$(CARGO) build --profile quick --bin aigw
	$(call say,aigw run $(FILES) $(ARGS))
	@exec target/quick/aigw run $(FILES) $(ARGS)

.PHONY: test
test: lint unit doc ## What must pass before a change is merged; CI runs `deny` and `fuzz-short` besides

.PHONY: unit
unit: $(VENV_READY) redis ## The tests: core, end to end with a real Envoy, the providers' SDKs
	$(call say,tests)
	AIGW_TEST_STRICT=1 $(CARGO) test --no-fail-fast

# What it needs besides Rust is built once a machine and kept in the user's cache: tests/k8s/tools.sh.
.PHONY: test-k8s
test-k8s: ## The control plane against a real API server, Envoy Gateway and Envoy
	$(call say,the tools for the tests on Kubernetes)
	@status=0; tools=$$(tests/k8s/tools.sh) || status=$$?; \
	if test $$status = 3 -a -z "$${CI:-}"; then exit 0; elif test $$status != 0; then exit $$status; fi; \
	AIGW_TEST_STRICT=1 AIGW_K8S_TOOLS=$$tools $(CARGO) test --test k8s -- --test-threads 2

.PHONY: test-chaos
test-chaos: redis ## Quotas while processors and stores are killed, stopped, slow: CHAOS_SEEDS (20) runs of each, some minutes
	$(call say,chaos)
	AIGW_CHAOS_SEEDS=$(CHAOS_SEEDS) $(CARGO) test --test chaos -- --test-threads=1

.PHONY: lint
lint: fmt clippy bans ## Format, lints, banned dependencies

.PHONY: fmt
fmt:
	$(call say,format)
	@$(CARGO) fmt --version >/dev/null 2>&1 || { echo "rustfmt is missing; installing it"; rustup component add rustfmt; }
	$(CARGO) fmt --check

.PHONY: clippy
clippy:
	$(call say,lints)
	@$(CARGO) clippy --version >/dev/null 2>&1 || { echo "clippy is missing; installing it"; rustup component add clippy; }
	$(CARGO) clippy --all-targets --test chaos --test k8s -- -D warnings
	$(CARGO) check --manifest-path bench/Cargo.toml --target-dir target

# The names are those of `bans` in deny.toml, which `make deny` checks in full.
.PHONY: bans
bans:
	$(call say,banned dependencies)
	@banned=$$(sed -n 's/.*{ crate = "\([^"]*\)".*/\1/p' deny.toml); test -n "$$banned"; \
	found=$$($(CARGO) tree --locked --edges normal,build --prefix none --format '{p}' | cut -d' ' -f1 | sort -u \
	  | grep -xF "$$banned" || true); \
	if test -n "$$found"; then echo "banned in deny.toml, but depended on:" $$found; exit 1; else echo "none"; fi

.PHONY: deny
deny: deny-tool ## Licences, sources and bans, with cargo-deny
	$(call say,licences, sources and bans)
	$(CARGO) deny check bans licenses sources

.PHONY: deny-tool
deny-tool:
	@$(CARGO) deny --version >/dev/null 2>&1 || { echo "cargo-deny is missing; building it takes some minutes"; \
	  CARGO_PROFILE_DEV_DEBUG=0 $(CARGO) install --quiet --locked --debug cargo-deny@$(DENY_VERSION); }

.PHONY: doc
doc: ## The library's documentation, without warnings
	$(call say,documentation)
	RUSTDOCFLAGS='$(DOCFLAGS)' $(CARGO) doc --no-deps --lib

.PHONY: crds
crds: ## The kinds of the gateway in manifests/crds, from the types
	$(CARGO) run --bin aigw -- crds --output manifests/crds

.PHONY: fuzz
fuzz: ## Each fuzz target for FUZZ_SECONDS (60), with nightly Rust and cargo-fuzz
	@$(CARGO) +nightly --version >/dev/null 2>&1 || { echo "nightly Rust is missing; installing it"; \
	  rustup toolchain install nightly --profile minimal; }
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { echo "cargo-fuzz is missing; building it"; \
	  $(CARGO) install --locked cargo-fuzz; }
	@for target in $$($(CARGO) +nightly fuzz list); do \
	  printf '== %s\n' "$$target"; \
	  mkdir -p fuzz/corpus/$$target; \
	  $(CARGO) +nightly fuzz run "$$target" fuzz/corpus/$$target fuzz/seeds/$$target -- -max_total_time=$(FUZZ_SECONDS); done

# No sanitizer, so any Rust will do; one executable, and dependencies built as for the tests, so that it is soon built.
.PHONY: fuzz-short
fuzz-short: ## Each fuzz target for ten seconds at most, as in CI
	$(call say,fuzz targets)
	@if ! command -v c++ >/dev/null; then echo "SKIPPED fuzz-short: libFuzzer needs a C++ compiler"; exit 0; fi; \
	RUSTC_WRAPPER=$(CURDIR)/fuzz/instrument \
	  $(CARGO) build --manifest-path fuzz/Cargo.toml --target-dir target --example any; \
	rm -rf target/fuzz; failed=; \
	for seeds in fuzz/seeds/*; do \
	  target=$${seeds##*/}; mkdir -p target/fuzz/$$target; log=target/fuzz/$$target.log; \
	  if FUZZ_TARGET=$$target target/debug/examples/any -seed=1 -runs=100000 -max_total_time=10 -max_len=4096 \
	    -artifact_prefix=target/fuzz/$$target- target/fuzz/$$target $$seeds >$$log 2>&1; \
	  then echo "fuzz $$target: ok, $$(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' $$log) inputs"; \
	  else tail -n 40 $$log; echo "error: fuzz $$target failed; its input is in target/fuzz"; failed=1; fi; \
	done; test -z "$$failed"

# The target folder is shared, so that what the gateway and the rig both need is built once.
BENCH := target/release/aigw-bench

.PHONY: bench
bench: bench-build redis ## Speed against no gateway and a do-nothing one, about 10 minutes (BENCH_QUICK=1: one)
	$(call say,bench; bench/RESULTS.md says how to read it)
	@$(BENCH) run --aigw target/release/aigw

.PHONY: bench-build
bench-build:
	$(call say,building aigw and the rig; the first time takes some minutes)
	$(CARGO) build --release --bin aigw
	$(CARGO) build --release --manifest-path bench/Cargo.toml --target-dir target

.PHONY: bench-peers
bench-peers: bench-build ## LiteLLM and Portkey on the same machine, installed if they are missing
	@bench/peers.sh $(BENCH)

# The version that was compared last; the service has no tags.
RATELIMIT := github.com/envoyproxy/ratelimit/src/service_cmd@v1.4.1-0.20260122083618-3fb702589d36

.PHONY: bench-quota
bench-quota: bench-build redis bench/.peers/service_cmd ## Quotas in Redis against envoyproxy/ratelimit, built with Go if it is missing
	@$(BENCH) ratelimit --service bench/.peers/service_cmd

bench/.peers/service_cmd:
	$(call say,building envoyproxy/ratelimit)
	@command -v go >/dev/null || { echo "Go is missing; https://go.dev/doc/install"; exit 1; }
	GOBIN=$(CURDIR)/bench/.peers go install $(RATELIMIT)

.PHONY: venv
venv: $(VENV_READY) ## The Python environment of the SDK tests, and a Valkey server

$(VENV_READY): tests/python/requirements.txt
	$(call say,Python environment in $(VENV))
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) has no working venv module; on Debian: apt install python3-venv"; exit 1; }
	$(VENV)/bin/pip install --disable-pip-version-check --requirement $<
	@touch $@

# Only tests need a server. Where none can be had they say so; nothing is installed without the rights to.
.PHONY: redis
redis: ## A redis-server for the tests, from Debian's packages if it is missing
	@command -v redis-server >/dev/null && exit 0; \
	if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
	  echo "redis-server is missing; installing it"; \
	  { apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends redis-server; } \
	    >/dev/null 2>&1 && { service redis-server stop >/dev/null 2>&1 || true; } && exit 0; \
	fi; \
	echo "SKIPPED: there is no redis-server, and it cannot be installed here; on Debian: apt install redis-server"

.PHONY: clean
clean: ## Remove what was built
	rm -rf target fuzz/target bench/target bench/.peers $(VENV)
