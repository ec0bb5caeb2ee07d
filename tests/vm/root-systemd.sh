# Root where systemd rules the cgroups: what has a limit is in a scope that systemd handed over.
. /vm/lib.sh

shows_limits_are_kept_in_a_scope() {
	box run -d --name scoped -m 32m --cpus 0.5 --network none busybox sleep 1000 >/dev/null
	group=$(group_of scoped)
	case $group in /sys/fs/cgroup/system.slice/box-*-all.scope/box-*) ;; *) fail "in $group" ;; esac
	unit=$(basename "$(dirname "$group")")
	[ "$(systemctl show -P Delegate "$unit")" = yes ]
	# The monitor is below the scope as well, and nothing is in it itself.
	[ -z "$(cat "$(dirname "$group")/cgroup.procs")" ]
	[ -n "$(cat "$(dirname "$group")/box/cgroup.procs")" ]
	# What systemd does with its own units changes nothing.
	systemctl daemon-reload
	systemd-run -q --wait -p CPUWeight=50 -p MemoryMax=100M true
	[ "$(cat "$group/cpu.max")" = "50000 100000" ] || fail "cpu.max is $(cat "$group/cpu.max")"
	[ "$(cat "$group/memory.max")" = 33554432 ] || fail "memory.max is $(cat "$group/memory.max")"
	box rm -f scoped >/dev/null
	gone() { [ -z "$(systemctl list-units --all --no-legend 'box-*')" ]; }
	until_so gone
}
shows_the_caller_stays_where_it_was() {
	before=$(cat /proc/self/cgroup)
	run_busybox -m 32m busybox true
	[ "$(cat /proc/self/cgroup)" = "$before" ]
}
shows_a_scope_ends_with_a_killed_monitor() {
	box run -d --name killed -m 32m --network none busybox sleep 1000 >/dev/null
	group=$(group_of killed)
	for pid in $(cat "$(dirname "$group")/box/cgroup.procs"); do
		if grep -qa __box_monitor "/proc/$pid/cmdline"; then kill -9 "$pid"; fi
	done
	gone() { [ ! -e "$(dirname "$group")" ]; }
	until_so gone
	box rm -f killed >/dev/null
}
shows_what_is_there_without_a_bus() {
	# Limits hold at the top, where systemd might take them back: better than none, and as without systemd.
	mkdir -p /tmp/no-bus
	ends 137 unshare -m sh -c 'mount --bind /tmp/no-bus /run/dbus && box run --rm --network none -m 32m busybox tail /dev/zero'
	has "$said" "memory limit"
}
shows_nothing_of_roots_is_left() {
	empty() { [ -z "$(groups_left)" ]; }
	until_so empty || fail "$(groups_left)"
}

one "$1"
