#!/usr/bin/env bash
# Installs what box needs beside a Rust toolchain, and what its demo and tests use, from Debian's packages.
set -euo pipefail

# build: a C compiler (zstd, xz). run: uidmap, and passt for networks of ordinary users. demo and tests: the rest. fuzz: a C++ compiler.
packages=(gcc g++ make uidmap passt busybox-static xz-utils zstd bzip2 python3 libcap2-bin attr strace ninja-build mmdebstrap jq
	skopeo umoci podman git tmux iproute2 docker-registry openssl nftables iptables chromium python3-pil)
# vm: `install-deps.sh vm` installs what scripts/vm.sh needs as well.
if [ "${1:-}" = vm ]; then packages+=(qemu-system-x86 e2fsprogs cpio); fi

missing=()
for package in "${packages[@]}"; do
	dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ]; then
	echo "these packages are missing, and only root can install them: ${missing[*]}" >&2
	exit 1
fi
echo "installing: ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
