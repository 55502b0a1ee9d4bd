#!/usr/bin/env bash
# Installs what clip-train builds with, from the distribution (Debian 12 or newer, Ubuntu 24.04 or
# newer). Works as root or through sudo; does nothing when everything is already there.
set -euo pipefail
packages=(gcc g++ libc6-dev cmake ninja-build pkg-config git
    libjpeg-dev libturbojpeg0-dev libutf8proc-dev libyaml-dev libcjson-dev libdnnl-dev libcmocka-dev
    libopenmpi-dev openmpi-bin)
missing=()
for package in "${packages[@]}"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
sudo=""
[ "$(id -u)" -eq 0 ] || sudo="sudo"
echo "installing: ${missing[*]}"
$sudo apt-get update -q
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends "${missing[@]}"
