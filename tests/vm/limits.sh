# What holds for whoever has limits: root, a user with a delegated subtree, a user with a session. Read by their scripts, which say
# with `container` what else a container is started with.

cat >/tmp/hog.$$ <<'BOXFILE'
FROM busybox
LIMIT memory=48M
RUN true
RUN tail /dev/zero
BOXFILE

memory_is_limited() {
	ends 137 run_busybox -m 32m busybox tail /dev/zero
	has "$said" "memory limit"
	run_busybox -m 32m busybox true
}

build_is_limited() {
	mkdir -p "/tmp/context.$$"
	ends 1 box build --network none --progress plain -f "/tmp/hog.$$" "/tmp/context.$$"
	has "$said" ":4:"
	has "$said" "peak"
}

oom_is_noted() {
	box run -d --name oom -m 32m --network none busybox tail /dev/zero >/dev/null
	ends 0 box wait oom
	[ "$said" = 137 ] || fail "ended with $said"
	has "$(box inspect oom)" '"OOMKilled": true'
	box rm oom >/dev/null
}

pids_are_limited() {
	# 8 processes at most: the shell and seven others.
	said=$(run_busybox --pids-limit 8 busybox sh -c 'for i in $(seq 20); do sleep 3 & done; true' 2>&1) || :
	has "$said" "can't fork"
}

cpu_is_limited() {
	box run -d --name cpu --cpus 0.2 --network none busybox sh -c 'while :; do :; done' >/dev/null
	group=$(group_of cpu)
	[ "$(cat "$group/cpu.max")" = "20000 100000" ] || fail "cpu.max is $(cat "$group/cpu.max")"
	throttled() { [ "$(sed -n 's/^nr_throttled //p' "$group/cpu.stat")" -gt 3 ]; }
	until_so throttled
	box rm -f cpu >/dev/null
}

stats_are_shown() {
	box run -d --name stats -m 64m --pids-limit 50 --network none busybox sh -c 'sleep 100 & sleep 100 & wait' >/dev/null
	said=$(box stats --no-stream --format json stats)
	has "$said" '"MemoryLimit": 67108864'
	has "$said" '"Pids": 3'
	case $said in *'"Memory": 0,'* | *'"Memory": null'*) fail "$said" ;; *'"Memory": '[0-9]*) ;; *) fail "$said" ;; esac
	box rm -f stats >/dev/null
}

pause_stops() {
	box run -d --name paused --network none busybox sh -c 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done' >/dev/null
	until_so sh -c 'box logs paused | grep -q 3'
	box pause paused >/dev/null
	group=$(group_of paused)
	grep -q '^frozen 1' "$group/cgroup.events"
	before=$(box logs paused | wc -l)
	sleep 1
	[ "$(box logs paused | wc -l)" = "$before" ] || fail "it went on"
	box unpause paused >/dev/null
	went_on() { [ "$(box logs paused | wc -l)" -gt "$before" ]; }
	until_so went_on
	box rm -f paused >/dev/null
}

update_changes() {
	box run -d --name update --network none busybox sleep 100 >/dev/null
	group=$(group_of update)
	[ "$(cat "$group/memory.max")" = max ]
	box update -m 40m --pids-limit 9 --cpus 0.5 update >/dev/null
	[ "$(cat "$group/memory.max")" = 41943040 ] || fail "memory.max is $(cat "$group/memory.max")"
	[ "$(cat "$group/pids.max")" = 9 ] || fail "pids.max is $(cat "$group/pids.max")"
	[ "$(cat "$group/cpu.max")" = "50000 100000" ] || fail "cpu.max is $(cat "$group/cpu.max")"
	ends 137 box exec update tail /dev/zero
	box rm -f update >/dev/null
}

exec_is_in_the_group() {
	box run -d --name joined -m 32m --network none busybox sleep 100 >/dev/null
	ends 137 box exec joined tail /dev/zero
	has "$(cat "$(group_of joined)/memory.events")" "oom_kill 1"
	box rm -f joined >/dev/null
}

nothing_is_left() {
	empty() { [ -z "$(groups_left)" ]; }
	until_so empty || fail "$(groups_left)"
	[ -z "$(box ps -aq)" ] || fail "containers: $(box ps -a)"
}
