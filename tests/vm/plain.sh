#!/bin/sh
# Process 1 of the machine without systemd.
. /vm/lib.sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs -o mode=755 run /run
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 pts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
busybox ip link set lo up
modprobe tun
chmod 666 /dev/net/tun

box import --progress quiet /vm/busybox.tar busybox
all_of /vm/root.sh

# Handed over by root, controllers and all.
echo "+memory +pids +cpu" >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/ann /sys/fs/cgroup/ann/session /sys/fs/cgroup/other
chown -R ann: /sys/fs/cgroup/ann
user() { setpriv --reuid ann --regid ann --init-groups "$@"; }
import() { HOME=/home/ann user box import --progress quiet /vm/busybox.tar busybox; }
(
	echo 0 >/sys/fs/cgroup/ann/session/cgroup.procs
	import
	all_of /vm/delegated.sh user
)
(
	echo 0 >/sys/fs/cgroup/other/cgroup.procs
	all_of /vm/undelegated.sh user
)
all_of /vm/single.sh
echo end >"$results"
sync
busybox poweroff -f
