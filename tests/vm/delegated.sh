# An ordinary user in a subtree that was handed over as the kernel's documentation says: the directory, cgroup.procs and
# cgroup.subtree_control are the user's, and the user's processes are in a group below.
. /vm/lib.sh
. /vm/limits.sh
export HOME=/home/ann

shows_who_this_is() {
	[ "$(id -u)" = 1000 ]
	has "$(cat /proc/self/cgroup)" "0::/ann/session"
}
shows_memory_is_limited_for_a_user() { memory_is_limited; }
shows_a_users_build_is_limited() { build_is_limited; }
shows_a_users_oom_kill_is_noted() { oom_is_noted; }
shows_a_users_pids_are_limited() { pids_are_limited; }
shows_a_users_cpu_is_limited() { cpu_is_limited; }
shows_stats_for_a_user() { stats_are_shown; }
shows_pause_for_a_user() { pause_stops; }
shows_update_for_a_user() { update_changes; }
shows_a_users_exec_is_in_the_group() { exec_is_in_the_group; }
shows_nothing_of_a_users_is_left() { nothing_is_left; }

one "$1"
