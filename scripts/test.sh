#!/usr/bin/env bash
# Runs every test. They use namespaces, overlay and cgroups for real, so the abilities are checked first and the missing ones
# are named: nothing is skipped. BOX_LONG=1 runs the long forms too.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
need() { local what=$1; shift; "$@" >/dev/null 2>&1 || missing+=("$what"); }
overlay() {
	local dir; dir=$(mktemp -d)
	mkdir "$dir"/{lower,upper,work,merged}
	unshare -m mount -t overlay overlay -o "lowerdir=$dir/lower,upperdir=$dir/upper,workdir=$dir/work" "$dir/merged"
	local result=$?; rm -rf "$dir"; return $result
}
need "root (run the tests as root)" test "$(id -u)" = 0
need "mount namespaces" unshare -m true
need "user namespaces" unshare -U true
need "pid namespaces" unshare -fp true
need "overlay file systems (upper on the temporary directory's file system)" overlay
need "a cgroup file system with memory, cpu and pids" test -e /proc/self/cgroup
need "newuidmap" command -v newuidmap
need "tracing of processes (strace, ptrace)" strace -o /dev/null true
need "a static busybox" command -v busybox
if [ ${#missing[@]} -gt 0 ]; then
	printf 'the tests need abilities that this machine lacks:\n' >&2
	printf '  - %s\n' "${missing[@]}" >&2
	exit 1
fi

cargo test --workspace --locked --no-fail-fast "$@"
# Alone and last: it moves the clock of the machine.
[ $# -gt 0 ] || cargo test --locked --test clock -- --ignored
