#!/usr/bin/env bash
# What a program in a container may do: box beside Docker and Podman. Installs these from Debian's packages; their services are the
# script's own. Needs root. Usage: compare-sandbox.sh PATH-OF-BOX
set -euo pipefail
cd "$(dirname "$0")/.."
packages=(docker.io podman runc busybox-static gcc libc6-dev python3)
if ! dpkg -s "${packages[@]}" >/dev/null 2>&1; then
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
work=$(mktemp -d /var/tmp/box-sandbox.XXXXXX)
trap 'rm -rf "$work"' EXIT
python3 tests/sandbox_peers.py --box "$(realpath "$1")" --work "$work"
