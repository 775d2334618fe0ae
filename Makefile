# make alone, or make help, says what there is.
#
# Everything is built with --release: one profile, so RocksDB is compiled once. Extra arguments for what is run go into ARGS.

PREPARED := @scripts/prepare
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint doc

help: ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target what; do printf '  %-11s %s\n' "$$target" "$$what"; done
	@echo 'The first build compiles RocksDB: 6 to 18 minutes, once. CARGO_TARGET_DIR (default ~/.cache/rivermark/target) keeps it.'

demo: ## a year of flights through a pipeline, crash and recovery included
	$(PREPARED) cargo run --release --example demo -- $(ARGS)

test: ## all tests of all crates, and every example in the documentation; the dashboard in a browser
	$(PREPARED) cargo test --release --workspace $(ARGS)

bench: ## criterion benches, then the benchmark programs of benches/src/bin
	$(PREPARED) scripts/bench $(ARGS)

lint: ## formatting, clippy, rustdoc: no warning passes
	$(PREPARED) cargo fmt --all --check
	$(PREPARED) cargo clippy --release --workspace --all-targets -- -D warnings
	$(PREPARED) cargo clippy --release --package rivermark --no-default-features --lib -- -D warnings
	$(PREPARED) cargo clippy --release --package rivermark-cli --no-default-features --lib -- -D warnings
	@RUSTDOCFLAGS='-D warnings' scripts/prepare cargo doc --release --workspace --no-deps

doc: ## the API's documentation, as HTML
	$(PREPARED) cargo doc --release --workspace --no-deps
	$(PREPARED) sh -c 'echo "$$CARGO_TARGET_DIR/doc/rivermark/index.html"'
