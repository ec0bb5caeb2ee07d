# Shared by the scripts that run in the virtual machine (scripts/vm.sh). A script is a list of functions `shows_…`; each runs in a shell
# of its own with -e, and a line on the second serial line says how it went.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
results=${VM_RESULTS:-/dev/ttyS1}

# All functions of a script, as whoever is called by the words before it: all_of SCRIPT [COMMAND...]
all_of() {
	script=$1
	shift
	for name in $(sed -n 's/^\(shows_[a-z0-9_]*\)() *{.*/\1/p' "$script"); do
		if said=$("$@" sh -eu "$script" "$name" 2>&1 </dev/null); then
			echo "ok $name" >"$results"
		else
			echo "FAILED $name ($script, code $?)" >"$results"
			printf '%s\n' "$said" | tail -40 | sed 's/^/    /' >"$results"
		fi
	done
}

# The last line of each script: runs the one function that was asked for.
one() { "$1"; }

fail() {
	echo "$*"
	exit 1
}

# The text holds the words: has TEXT WORDS
has() { case $1 in *"$2"*) ;; *) fail "no \"$2\" in: $1" ;; esac; }

# Runs a command that must end with this code; what it said is in $said.
ends() {
	expected=$1
	shift
	code=0
	said=$("$@" 2>&1) || code=$?
	[ "$code" = "$expected" ] || fail "code $code, not $expected: $said"
}

# Waits up to ten seconds until a command succeeds.
until_so() {
	tries=0
	until "$@" >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ "$tries" -lt 100 ] || fail "never: $*"
		sleep 0.1
	done
}

# The cgroup of a running container, by its first process.
group_of() {
	pid=$(box inspect "$1" | sed -n 's/^ *"Pid": \([0-9]*\),*$/\1/p' | head -1)
	echo "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$pid/cgroup")"
}

run_busybox() { box run --rm --network none "$@"; }

# Groups of containers that are there now.
groups_left() { find /sys/fs/cgroup -type d -name 'box-*'; }
