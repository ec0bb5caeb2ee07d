#!/usr/bin/env bash
# The build cases of the corpus side by side with Docker's BuildKit: merged root file systems and configurations are compared.
# Installs Docker from Debian's packages and starts a daemon of its own. Needs root and BOX_CORPUS. Usage: compare-buildkit.sh PATH-OF-BOX
set -euo pipefail
cd "$(dirname "$0")/.."
: "${BOX_CORPUS:?must name the folder of the corpus}"
packages=(docker.io skopeo)
if ! dpkg -s "${packages[@]}" >/dev/null 2>&1; then
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
work=$(mktemp -d /var/tmp/box-buildkit.XXXXXX)
trap 'rm -rf "$work"' EXIT
python3 tests/buildkit.py --box "$(realpath "$1")" --corpus "$BOX_CORPUS" --known tests/buildkit-known.txt --work "$work"
