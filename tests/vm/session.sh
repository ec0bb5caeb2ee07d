# An ordinary user who logged in: the user's systemd is asked for a scope over D-Bus.
. /vm/lib.sh
. /vm/limits.sh

shows_this_is_a_session() {
	[ "$(id -u)" = 1000 ]
	has "$(cat /proc/self/cgroup)" "0::/user.slice/user-1000.slice/session-"
	[ -S "$XDG_RUNTIME_DIR/bus" ]
}
shows_memory_is_limited_in_a_session() { memory_is_limited; }
shows_a_build_is_limited_in_a_session() { build_is_limited; }
shows_an_oom_kill_is_noted_in_a_session() { oom_is_noted; }
shows_pids_are_limited_in_a_session() { pids_are_limited; }
shows_cpu_is_limited_in_a_session() { cpu_is_limited; }
shows_stats_in_a_session() { stats_are_shown; }
shows_pause_in_a_session() { pause_stops; }
shows_update_in_a_session() { update_changes; }
shows_exec_is_in_the_group_in_a_session() { exec_is_in_the_group; }
shows_a_users_scope() {
	box run -d --name scoped -m 32m --network none busybox sleep 1000 >/dev/null
	group=$(group_of scoped)
	users=/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service
	case $group in "$users"/app.slice/box-*-all.scope/box-*) ;; *) fail "in $group" ;; esac
	[ "$(systemctl --user show -P Delegate "$(basename "$(dirname "$group")")")" = yes ]
	box rm -f scoped >/dev/null
	gone() { [ -z "$(systemctl --user list-units --all --no-legend 'box-*')" ]; }
	until_so gone
}
shows_limits_below_the_users_manager() {
	# As a terminal of a desktop, whose cgroup is the user manager's: groups beside it would be that one's to change.
	ends 137 systemd-run --user --scope -q box run --rm --network none -m 32m busybox tail /dev/zero
	has "$said" "memory limit"
	ends 137 systemd-run --user --wait --pipe -q box run --rm --network none -m 32m busybox tail /dev/zero
}
shows_a_killed_monitor_leaves_nothing() {
	box run -d --name killed -m 32m --network none busybox sleep 1000 >/dev/null
	group=$(group_of killed)
	for pid in $(cat "$(dirname "$group")/box/cgroup.procs"); do
		if grep -qa __box_monitor "/proc/$pid/cmdline"; then kill -9 "$pid"; fi
	done
	gone() { [ ! -e "$(dirname "$group")" ]; }
	until_so gone
	box rm -f killed >/dev/null
}
shows_without_a_bus_limits_are_refused() {
	export DBUS_SESSION_BUS_ADDRESS=unix:path=/nowhere/bus
	ends 125 run_busybox -m 32m busybox true
	has "$said" "/nowhere/bus"
	has "$said" "--limits=best-effort"
	run_busybox --limits=best-effort -m 32m busybox true
}
shows_nothing_is_left_of_a_session() { nothing_is_left; }

one "$1"
