#!/usr/bin/env bash
# The main job, on your machine: make a small rootfs.tar.xz, serve it over loopback HTTP, build Boxfile.example from it,
# run the image. Usage: scripts/demo.sh PATH-OF-BOX
set -euo pipefail
box=$(realpath "$1")
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
server=
cleanup() {
	[ -n "$server" ] && kill "$server" 2>/dev/null
	rm -rf "$work"
}
trap cleanup EXIT
export BOX_ROOT="$work/store"

say() { printf '\n== %s\n' "$*"; }

say "a rootfs of busybox, as rootfs.tar.xz"
bash "$here/scripts/busybox-rootfs.sh" "$work/rootfs"
mkdir "$work/www"
tar -C "$work/rootfs" --sort=name --owner=0 --group=0 --numeric-owner -cJf "$work/www/rootfs.tar.xz" .
ls -l "$work/www"

say "served over HTTP on loopback"
python3 "$here/scripts/serve.py" "$work/www" "$work/port" &
server=$!
for _ in $(seq 100); do [ -s "$work/port" ] && break; sleep 0.05; done
port=$(cat "$work/port")
checksum=$(sha256sum "$work/www/rootfs.tar.xz" | cut -d' ' -f1)

say "box build: Boxfile.example"
mkdir "$work/context"
cp -r "$here/Boxfile.example" "$work/context/Boxfile"
printf 'hello from a file of the build context\n' >"$work/context/greeting.txt"
build=("$box" build -t demo --build-arg "ROOTFS=http://127.0.0.1:$port/rootfs.tar.xz"
	--build-arg "CHECKSUM=sha256:$checksum" "$work/context")
"${build[@]}"

say "the same again: every step comes from the cache"
"${build[@]}"

say "box run"
output=$("$box" run --rm --network none demo)
printf '%s\n' "$output"
grep -q 'hello from a file of the build context' <<<"$output"

say "box images, box history"
"$box" images
"$box" history demo
