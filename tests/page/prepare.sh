#!/usr/bin/env bash
# Installs what the tests of the page need and lacks: Debian's chromium and npm (root on Debian),
# playwright and axe-core into .venv-page. Prints each step, and says what can't be had.
set -euo pipefail
cd "$(dirname "$0")/../.."

FOLDER=.venv-page
AXE=axe-core@4.14.1
PYTHON=${1:-.venv/bin/python}

say() { echo "prepare.sh: $*"; }
give_up() { say "$*" >&2; exit 1; }

install_debian() {
  local missing=()
  command -v chromium >/dev/null || missing+=(chromium)
  command -v npm >/dev/null || missing+=(npm)
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || give_up "${missing[*]} missing, and there is no apt-get to install it"
  [ "$(id -u)" = 0 ] || give_up "${missing[*]} missing; apt-get install ${missing[*]}, as root, would install it"
  say "installing ${missing[*]} from Debian"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    give_up "${missing[*]} can't be installed from Debian"
}

install_drivers() {
  local wanted
  wanted=$(cat tests/page/requirements.txt; echo "$AXE")
  [ "$(cat "$FOLDER/.installed" 2>/dev/null)" != "$wanted" ] || return 0
  say "installing playwright and $AXE into $FOLDER"
  rm -rf "$FOLDER"
  "$PYTHON" -m pip install --progress-bar off -q --target "$FOLDER" -r tests/page/requirements.txt
  npm install --silent --no-audit --no-fund --prefix "$FOLDER" "$AXE" >/dev/null
  echo "$wanted" >"$FOLDER/.installed"
}

install_debian
install_drivers
