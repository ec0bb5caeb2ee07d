#!/bin/sh
# The service that runs the tests where systemd is process 1.
. /vm/lib.sh
finish() {
	echo end >"$results"
	sync
	busybox poweroff -f
}
trap finish EXIT
modprobe tun
chmod 666 /dev/net/tun

box import --progress quiet /vm/busybox.tar busybox
all_of /vm/root.sh
all_of /vm/root-systemd.sh

# As one who logs in: a session of logind, with a user manager and its bus.
session() { su - ann -c "exec $*"; }
session box import --progress quiet /vm/busybox.tar busybox
all_of /vm/session.sh session
