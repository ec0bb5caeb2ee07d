#!/usr/bin/env bash
# Exchanges images between box and Docker, Podman, skopeo, umoci, containerd and a registry. Installs these from Debian's packages;
# their services are the test's own. Needs root. Usage: interop.sh PATH-OF-BOX
set -euo pipefail
cd "$(dirname "$0")/.."
packages=(docker.io podman runc skopeo umoci containerd docker-registry busybox-static libcap2-bin attr python3)
if ! dpkg -s "${packages[@]}" >/dev/null 2>&1; then
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
work=$(mktemp -d /var/tmp/box-interop.XXXXXX)
trap 'rm -rf "$work"' EXIT
python3 tests/interop.py --box "$(realpath "$1")" --work "$work"
