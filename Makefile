# What people and CI run; each target says in one line what it is for.
# The agent is PID 1 of the guest, where there is no libc to link to: it is built static. With an explicit target the
# flags do not reach build scripts and procedural macros, which must stay dynamic.
AGENT_TARGET := x86_64-unknown-linux-gnu
AGENT_FLAGS := -C target-feature=+crt-static

.PHONY: help setup build serve demo bench examples faults faults-build fuzz lint soak test test-kvm wire-types

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## prepare this machine: host packages, guest kernel, build tools, base images
	scripts/setup

build: ## build the server and the guest agent, optimised
	cargo build --release -p rekindle
	RUSTFLAGS="$(AGENT_FLAGS)" cargo build --profile agent -p rekindle-agent --target $(AGENT_TARGET)
	install target/$(AGENT_TARGET)/agent/rekindle-agent target/release/rekindle-agent

serve: setup build ## run the server in the foreground, on the default data directory
	target/release/rekindle serve

demo: setup build ## build examples/hello, run it, suspend it, wake it, on a server that leaves no trace
	scripts/demo

PLOTS ?= target/bench
bench: setup build ## measure what users wait for, into target/bench/figures.json and PLOTS
	scripts/clients >/dev/null
	scripts/bench-peers >/dev/null
	cargo run --release -p rekindle-bench -- --json target/bench/figures.json --plots $(PLOTS)

# How many runs, and what they are drawn by.
RUNS ?= 1000
SEED ?= 1
faults: setup build faults-build ## kill the server, fail its writes, cut its power at every step: RUNS of SEED
	scripts/clients >/dev/null
	target/release/rekindle-faults --runs $(RUNS) --seed $(SEED)

faults-build:
	cargo build --release -p rekindle-faults -p rekindle-faults-preload

# The parser to fuzz, or all of them, and how long each.
TARGET ?= $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
SECONDS ?= 60
fuzz: ## search for bytes that break a parser: each for SECONDS, or TARGET alone
	set -e; for target in $(TARGET); do scripts/fuzz $$target $(SECONDS); done

lint: ## formatting, clippy, and the licences of dependencies where cargo-deny is installed
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny check licenses bans; \
	else echo "cargo-deny is not installed: licences not checked"; fi

soak: setup build ## a database over 200 suspensions, the server killed in 50 (REKINDLE_SOAK_SEED chooses which moments)
	scripts/clients >/dev/null
	cargo test -p rekindle-e2e --test suite -- --ignored --nocapture soak

examples: setup build ## the examples whose images take many minutes to build, which `make test` leaves out
	scripts/clients >/dev/null
	cargo test -p rekindle-e2e --test suite -- --ignored --nocapture examples

test: setup build ## every test, also those against a server with the real AWS CLI
	scripts/clients >/dev/null
	scripts/browser >/dev/null
	cargo test --workspace

# What to run of the suite, and a Firecracker to run it on as well.
FILTER ?=
FIRECRACKER ?=
test-kvm: setup build ## the end-to-end suite, or FILTER, with KVM, on an emulated host that has it; FIRECRACKER=path: on that too
	scripts/clients >/dev/null
	FIRECRACKER=$(FIRECRACKER) scripts/test-kvm $(FILTER)

wire-types: ## generate the API's wire types again, from the models in the installed botocore
	scripts/clients >/dev/null
	cargo run -p rekindle-wire-types
