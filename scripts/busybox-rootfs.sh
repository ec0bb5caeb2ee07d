#!/usr/bin/env bash
# Makes a root file system of the static busybox in the directory $1: one program and a symlink per applet.
set -euo pipefail
root=$1
mkdir -p "$root"/{bin,etc,tmp,root,usr/bin,var}
chmod 1777 "$root/tmp"
chmod 700 "$root/root"
install -m 755 "$(command -v busybox)" "$root/bin/busybox"
for applet in $(busybox --list); do
	[ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
