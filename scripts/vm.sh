#!/usr/bin/env bash
# Boots Debian's cloud kernel in a virtual machine (software emulation; no KVM is needed), where cgroups are version 2 alone, and shows box's
# limits there: once with a shell script as process 1, once with systemd. Packages come from Debian; nothing is kept, but Debian's
# files where VM_CACHE names a directory. Needs root for the root file system. Usage: vm.sh PATH-OF-BOX [plain|systemd]
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
cd "$(dirname "$0")/.."
box=$(realpath "$1")
modes=${2:-plain systemd}
mirror_packages=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,login,passwd,uidmap,passt,busybox-static,kmod
modules=(virtio_pci virtio_blk ext4 overlay)
bash scripts/install-deps.sh vm

work=$(mktemp -d /var/tmp/box-vm.XXXXXX)
machine=
trap '[ -z "$machine" ] || kill "$machine" 2>/dev/null || :; rm -rf "$work"' EXIT
root=$work/root
mkdir "$root"
started=$SECONDS
step() { echo "vm: $* ($((SECONDS - started)) s)"; }

# Debian, with the kernel's package unpacked, not installed: an installed one would make an initramfs of its own.
debian() {
	local kernel
	kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)$/\1/p' | tail -1)
	[ -n "$kernel" ] || { echo "no kernel package: run apt-get update first" >&2; exit 1; }
	(cd "$work" && apt-get download -qq "$kernel") 2>"$work/apt.log" &
	local download=$!
	mmdebstrap --quiet --variant=minbase --include="$mirror_packages" bookworm "$root" 2>"$work/mmdebstrap.log" ||
		{ cat "$work/mmdebstrap.log" >&2; exit 1; }
	wait "$download" || { cat "$work/apt.log" >&2; exit 1; }
	# Not into the root itself, whose /lib is a link.
	dpkg-deb -x "$work"/"$kernel"_*.deb "$work/kernel"
	mv "$work/kernel/lib/modules" "$root/usr/lib/modules"
	mv "$work/kernel/boot"/vmlinuz-* "$root/boot/"
	rm -rf "$root"/usr/share/{doc,man,locale,info} "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin
}
kept=${VM_CACHE:-}/debian.tar
if [ -n "${VM_CACHE:-}" ] && [ -e "$kept" ]; then
	tar -C "$root" -xpf "$kept"
else
	debian
	[ -z "${VM_CACHE:-}" ] || tar -C "$root" -cf "$kept" .
fi
version=$(ls "$root/lib/modules")
mv "$root/boot/vmlinuz-$version" "$work/vmlinuz"
step "Debian and its kernel $version are there"

# What the machine runs: box, the tests, a user with subordinate ids and one without.
install -m 755 "$box" "$root/usr/local/bin/box"
bash scripts/busybox-rootfs.sh "$work/busybox"
mkdir "$root/vm"
tar -C "$work/busybox" --sort=name --owner=0 --group=0 --numeric-owner -cf "$root/vm/busybox.tar" .
install -m 755 tests/vm/* "$root/vm/"
install -m 644 tests/vm/vm.service "$root/etc/systemd/system/vm.service"
chroot "$root" useradd -m -s /bin/sh -u 1000 ann
chroot "$root" useradd -m -s /bin/sh -u 1001 bob
sed -i '/^bob:/d' "$root/etc/subuid" "$root/etc/subgid"
chroot "$root" systemctl -q enable vm.service
chroot "$root" systemctl -q mask getty.target apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
	fstrim.timer systemd-timesyncd.service systemd-update-utmp.service systemd-random-seed.service 2>/dev/null
: >"$root/etc/machine-id"

# The first root is small: it loads what the disk needs, and goes on there.
early=$work/early
mkdir -p "$early"/{bin,dev,proc,sys,new,modules}
cp "$root/bin/busybox" "$early/bin/"
chroot "$root" depmod "$version"
number=0
for module in "${modules[@]}"; do
	while read -r word path _; do
		# "builtin" is in the kernel itself.
		[ "$word" = insmod ] || continue
		cp -n "$root$path" "$early/modules/$(printf %02d "$number")-$(basename "$path")"
		number=$((number + 1))
	done < <(chroot "$root" modprobe -S "$version" --show-depends "$module")
done
cat >"$early/init" <<'INIT'
#!/bin/busybox sh
export PATH=/bin
busybox mount -t devtmpfs dev /dev
# One that two others need is there twice.
for module in /modules/*; do busybox insmod "$module" 2>/dev/null; done
while [ ! -e /dev/vda ]; do busybox sleep 0.1; done
busybox mount -t ext4 /dev/vda /new || exec busybox poweroff -f
busybox mount --move /dev /new/dev
busybox mount -t proc proc /proc
read -r line </proc/cmdline
init=/sbin/init
for word in $line; do case $word in vm.init=*) init=${word#vm.init=} ;; esac; done
busybox umount /proc
exec busybox switch_root /new "$init"
INIT
chmod 755 "$early/init"
(cd "$early" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/initrd"
truncate -s 2G "$work/disk"
mke2fs -q -F -t ext4 -O ^has_journal -d "$root" "$work/disk"
step "its disk is made"

# Results come by the second serial line, one a line; what is said on the first is shown when something went wrong.
failed=0
run() { # MODE INIT RESULTS-EXPECTED
	local mode=$1 init=$2 expected=$3 console=$work/$1.console results=$work/$1.results
	cp --sparse=always "$work/disk" "$work/$mode.disk"
	timeout 900 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 1024 -nodefaults -display none -no-reboot \
		-kernel "$work/vmlinuz" -initrd "$work/initrd" \
		-append "console=ttyS0 panic=-1 quiet vm.init=$init systemd.show_status=0" \
		-drive "file=$work/$mode.disk,if=virtio,format=raw,cache=unsafe" \
		-serial "file:$console" -serial "file:$results" </dev/null &
	machine=$!
	wait "$machine" || echo "the machine ended with code $?"
	machine=
	tr -d '\r' <"$results" | sed "s/^/$mode: /"
	local passed; passed=$(grep -c '^ok ' "$results" || :)
	if [ "$passed" != "$expected" ] || grep -q '^FAILED ' "$results" || ! grep -q '^end' "$results"; then
		echo "$mode: FAILED: $passed of $expected passed; the console said:"
		tail -40 "$console"
		failed=1
	fi
	step "$mode: $passed of $expected passed"
	rm -f "$work/$mode.disk"
}
tests() { cat "$@" | grep -c '^shows_'; }
for mode in $modes; do
	case $mode in
	plain) run plain /vm/plain.sh "$(tests tests/vm/root.sh tests/vm/delegated.sh tests/vm/undelegated.sh tests/vm/single.sh)" ;;
	systemd) run systemd /sbin/init "$(tests tests/vm/root.sh tests/vm/root-systemd.sh tests/vm/session.sh)" ;;
	*) echo "no such mode: $mode" >&2; exit 2 ;;
	esac
done
exit "$failed"
