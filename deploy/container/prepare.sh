#!/usr/bin/env bash
# Makes a Debian machine able to build and run the image: podman, runc, and the base image that
# bentofile.yaml names. Prints each step, and skips those that are done already. Needs root.
set -euo pipefail
cd "$(dirname "$0")/../.."

PACKAGES=(podman runc debootstrap util-linux)
BASE_IMAGE=$(sed -n 's/^ *base_image: *//p' bentofile.yaml)
PULL_SECONDS=120
CERTIFICATES=/etc/ssl/certs/ca-certificates.crt  # Debian's path, here and in the image

say() { echo "prepare.sh: $*"; }
give_up() { say "$*" >&2; exit 1; }

install_packages() {
  local missing=()
  for package in "${PACKAGES[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]} from Debian"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

pull_base_image() {
  say "pulling $BASE_IMAGE"
  timeout "$PULL_SECONDS" podman pull -q "$BASE_IMAGE" >/dev/null 2>&1
}

# Makes a substitute for the base image if no registry can be reached: Debian 12, whose own Python is
# 3.11 too. It gets the machine's certificates, as the package index may be behind a proxy.
make_base_image() {
  local folder tree
  folder=$(mktemp -d)
  tree=$folder/debian
  trap 'rm -rf "$folder"' RETURN
  say "no registry can be reached: making a $BASE_IMAGE of our own with debootstrap"
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv \
    bookworm "$tree" >"$folder/log" 2>&1 || { tail -5 "$folder/log" >&2; give_up "debootstrap failed"; }
  rm "$tree"/usr/lib/python3.11/EXTERNALLY-MANAGED
  rm -rf "$tree"/var/cache/apt/archives/*.deb
  [ ! -e "$CERTIFICATES" ] || cp "$CERTIFICATES" "$tree$CERTIFICATES"
  tar -C "$tree" -c . | podman import -q \
    --change "ENV SSL_CERT_FILE=$CERTIFICATES" \
    --change "ENV PIP_CERT=$CERTIFICATES" \
    --change 'LABEL org.opencontainers.image.title="made by deploy/container/prepare.sh"' \
    - "$BASE_IMAGE" >/dev/null
}

[ "$(id -u)" = 0 ] || give_up "needs root, to install packages and to make a base image"
command -v apt-get >/dev/null || give_up "needs Debian's apt-get; elsewhere install: ${PACKAGES[*]}"
install_packages
podman image exists "$BASE_IMAGE" || pull_base_image || make_base_image
say "ready: $(podman --version), $BASE_IMAGE"
