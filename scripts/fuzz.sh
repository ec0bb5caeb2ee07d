#!/usr/bin/env bash
# Fuzzes the parser and the ignore rules: scripts/fuzz.sh [SECONDS each, default 60] [TARGET…]
# Coverage-guided, by libFuzzer, with the stable compiler. Says how many inputs were tried; what fails is kept in fuzz/artifacts/, and what was
# found worth keeping in fuzz/corpus/ (both are no part of the repository).
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -gt 0 ] && shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(boxfile ignore)

coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
host=$(rustc -vV | sed -n 's/^host: //p')
# With --target the instrumentation is not for build scripts, which have no fuzzer in them.
RUSTFLAGS="$coverage" cargo build --release --locked --quiet --manifest-path fuzz/Cargo.toml --target "$host" --target-dir target/fuzz

seeds() {
	case $1 in
	boxfile) cp Boxfile.example "$2/"; cp builder/tests/diagnostics/*.txt "$2/" ;;
	ignore) printf '*.o\n!keep.o\n**/a/*\n/b\n[a-c]?\na/b/c' >"$2/example" ;;
	esac
}

failed=0
for target in "${targets[@]}"; do
	mkdir -p "fuzz/corpus/$target" fuzz/artifacts
	seeds "$target" "fuzz/corpus/$target"
	log=$(mktemp)
	if ! "target/fuzz/$host/release/$target" -max_total_time="$seconds" -timeout=5 -max_len=4096 -print_final_stats=1 \
		-artifact_prefix="fuzz/artifacts/$target-" "fuzz/corpus/$target" >"$log" 2>&1; then
		tail -40 "$log"
		failed=1
	fi
	printf '%s: %s inputs tried in %s s, %s kept\n' "$target" \
		"$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" "$seconds" "$(find "fuzz/corpus/$target" -type f | wc -l)"
	rm "$log"
done
exit $failed
