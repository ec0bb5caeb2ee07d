# `make demo` sets everything up and shows the main job; `make test` passes the tests. See README.md.
.PHONY: demo test build deps lint audit long-test fuzz bench bench-peers compare-buildkit compare-sandbox interop vm

deps:
	bash scripts/install-deps.sh

build: deps
	cargo build --release --locked

demo: build
	bash scripts/demo.sh target/release/box

# What the tests need (root, namespaces, overlay) is checked first, and named where it is missing.
test: deps
	bash scripts/test.sh

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo fetch --locked
	cargo fetch --locked --manifest-path fuzz/Cargo.toml
	cargo deny --offline check bans licenses sources

# Known advisories of the dependencies; needs the network, for the advisory database.
audit:
	cargo deny check advisories

# The long forms of the campaigns that `make test` runs in short (kill points, failing disks, malicious archives, clock).
long-test: deps
	BOX_LONG=1 bash scripts/test.sh

# SECONDS= says how long each target is fuzzed.
fuzz: deps
	bash scripts/fuzz.sh $(or $(SECONDS),60)

# Inside: parsing, ignore rules, keys, the canonical tar.
bench:
	cargo bench --locked -p box-builder -p box-store --bench front --bench tar

bench-peers: build
	bash benches/peers target/release/box
	bash benches/peers target/release/box transfer
	bash benches/peers target/release/box copy

# The corpus' build cases side by side with Docker's BuildKit.
compare-buildkit: build
	bash scripts/compare-buildkit.sh target/release/box

# What a program in a default container may do, side by side with Docker and Podman.
compare-sandbox: build
	bash scripts/compare-sandbox.sh target/release/box

# Images to and from Docker, Podman, skopeo, umoci, containerd and a registry.
interop: build
	bash scripts/interop.sh target/release/box

# Limits on cgroup version 2 alone, without systemd and with it, in a virtual machine.
vm: build
	bash scripts/vm.sh target/release/box
