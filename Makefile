# Rekindle's own commands. Each does what it needs first, so a fresh machine needs no other step.
CARGO ?= cargo

.PHONY: build setup lint test

build:
	$(CARGO) build --release

# Packages, guest kernel, tools and base images; idempotent.
setup:
	scripts/setup

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

test: setup
	$(CARGO) test --workspace
