# A user without subordinate ids, and machines that forbid user namespaces: run as root, who changes the machine meanwhile.
. /vm/lib.sh
export HOME=/home/bob

as_bob() { setpriv --reuid bob --regid bob --init-groups "$@"; }

shows_one_id_is_enough() {
	as_bob box import --progress quiet /vm/busybox.tar busybox
	[ "$(as_bob box run --rm --network none busybox id -u)" = 0 ]
	as_bob mkdir -p /tmp/bob
	printf 'FROM busybox\nCOPY --chown=33:44 Boxfile /there\nRUN --network=none echo more >>/there\n' >/tmp/bob/Boxfile
	as_bob box build -q -t app /tmp/bob >/dev/null
	has "$(as_bob box export app | tar --numeric-owner -tvf - there)" 33/44
	as_bob box fsck >/dev/null
	ends 125 as_bob box run --rm --network none -u 33 app true
	has "$said" --add-subuids
}
shows_the_cure_where_user_namespaces_are_roots() {
	echo 0 >/proc/sys/kernel/unprivileged_userns_clone
	code=0
	said=$(as_bob box images 2>&1) || code=$?
	echo 1 >/proc/sys/kernel/unprivileged_userns_clone
	[ "$code" = 125 ]
	has "$said" kernel.unprivileged_userns_clone=1
}
shows_the_cure_where_there_are_no_user_namespaces() {
	before=$(cat /proc/sys/user/max_user_namespaces)
	echo 0 >/proc/sys/user/max_user_namespaces
	code=0
	said=$(as_bob box images 2>&1) || code=$?
	echo "$before" >/proc/sys/user/max_user_namespaces
	[ "$code" = 125 ]
	has "$said" user.max_user_namespaces=
}
shows_the_cure_where_proc_is_masked() {
	ends 125 unshare -m sh -c 'mount --bind /dev/null /proc/kcore && exec setpriv --reuid bob --regid bob --init-groups box run --rm --network none busybox true'
	has "$said" systempaths=unconfined
	has "$said" "/proc are masked"
}

one "$1"
