# An ordinary user to whom nothing is delegated, and no systemd to ask.
. /vm/lib.sh
export HOME=/home/ann

shows_a_limit_that_cannot_be_had_is_refused() {
	ends 125 run_busybox -m 32m busybox true
	has "$said" "memory"
	has "$said" "no cgroup is delegated"
	has "$said" "--limits=best-effort"
	run_busybox --limits=best-effort -m 32m busybox true
	run_busybox busybox true
}

one "$1"
