# Root's limits on cgroup version 2 alone.
. /vm/lib.sh
. /vm/limits.sh

shows_cgroups_are_version_2_alone() {
	[ "$(grep -c cgroup /proc/self/cgroup || :)" = 0 ]
	[ "$(wc -l </proc/self/cgroup)" = 1 ]
	has "$(cat /proc/self/cgroup)" "0::/"
	has "$(cat /proc/mounts)" " /sys/fs/cgroup cgroup2 "
}
shows_memory_is_limited() { memory_is_limited; }
shows_a_builds_memory_is_limited() { build_is_limited; }
shows_an_oom_kill_is_noted() { oom_is_noted; }
shows_pids_are_limited() { pids_are_limited; }
shows_cpu_is_limited() { cpu_is_limited; }
shows_stats() { stats_are_shown; }
shows_pause() { pause_stops; }
shows_update() { update_changes; }
shows_exec_is_in_the_group() { exec_is_in_the_group; }
shows_shares_and_sets() {
	box run -d --name rare -m 32m --memory-swap 48m --cpu-shares 512 --cpuset-cpus 1 --network none busybox sleep 100 >/dev/null
	group=$(group_of rare)
	[ "$(cat "$group/cpuset.cpus.effective")" = 1 ]
	[ "$(cat "$group/memory.swap.max")" = 16777216 ]
	[ "$(cat "$group/cpu.weight")" = 20 ] || fail "cpu.weight is $(cat "$group/cpu.weight")"
	box rm -f rare >/dev/null
}
shows_a_device_can_be_read_only() {
	run_busybox --device /dev/zero:/dev/some:r busybox head -c 1 /dev/some >/dev/null
	ends 1 run_busybox --device /dev/zero:/dev/some:r busybox sh -c 'echo >/dev/some'
	has "$said" "Operation not permitted"
}
shows_a_container_sees_its_own_group_alone() {
	said=$(run_busybox -m 32m busybox sh -c 'cat /proc/self/cgroup; cat /sys/fs/cgroup/memory.max; touch /sys/fs/cgroup/x' 2>&1) || :
	has "$said" "0::/"
	has "$said" 33554432
	has "$said" "Read-only file system"
}
shows_nothing_is_left() { nothing_is_left; }

one "$1"
