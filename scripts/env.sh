# Sourced by scripts/demo and scripts/test: makes .venv, then builds into build/release. Does nothing that has
# been done already.
#
#   PYTHON           the Python to start from (default: python3)
#   MNEMOSYNE_CUDA   AUTO (default: CUDA kernels where nvcc is found), ON or OFF
#   CI               when set to true, warnings are errors
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repo"
python=.venv/bin/python

say() { printf '== %s\n' "$*"; }

has_recent_torch() {  # <python>
  "$1" -c '
import importlib.metadata, re, sys
numbers = re.match(r"(\d+)\.(\d+)", importlib.metadata.version("torch")).groups()
sys.exit(tuple(map(int, numbers)) < (2, 11))' 2>/dev/null
}

# As root on Debian and Ubuntu: compiler, headers and libraries. Elsewhere CMake downloads what it can and
# names what is missing.
install_debian_packages() {
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then return; fi
  local wanted=(nlohmann-json3-dev libcli11-dev libgtest-dev zlib1g-dev liblzma-dev libpng-dev libjpeg-dev) missing=()
  for package in "${wanted[@]}"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
  done
  command -v c++ >/dev/null || missing+=(g++)
  "${PYTHON:-python3}" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
  "${PYTHON:-python3}" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || missing+=(python3-dev)
  if [ ${#missing[@]} = 0 ]; then return; fi
  say "apt-get install ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null ||
    say "apt-get failed: trying without"
}

make_venv() {
  if ! "$python" -c '' 2>/dev/null; then
    # From inside the old .venv, python3 would be the one that is about to be replaced.
    local base=${PYTHON:-python3}
    if [ "${VIRTUAL_ENV:-}" = "$repo/.venv" ]; then base=/usr/bin/python3; fi
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
      { say "expected Python 3.10 or later, got: $("$base" --version 2>&1)"; exit 1; }
    rm -rf .venv
    say "making .venv"
    "$base" -m venv .venv
    if has_recent_torch "$base"; then
      # Its packages stay visible, also when it is a virtual environment itself.
      "$base" -c 'import sys
for path in sys.path:
    if path.endswith(("site-packages", "dist-packages")):
        print(f"import site; site.addsitedir({path!r})")' >"$(site_packages)/active-python.pth"
    fi
  fi
  if ! cmp -s requirements.txt .venv/requirements-installed.txt; then
    say "installing requirements.txt into .venv"
    local visible hidden=.venv/active-python.pth
    visible=$(site_packages)/active-python.pth
    if [ -f "$hidden" ]; then mv "$hidden" "$visible"; fi  # of an attempt that failed
    if has_recent_torch "$python"; then
      grep -v '^torch==' requirements.txt >.venv/requirements.txt
    else
      cp requirements.txt .venv/requirements.txt
    fi
    # Out of sight meanwhile: what .venv does not have itself is gone when the other environment is not active.
    if [ -f "$visible" ]; then mv "$visible" "$hidden"; fi
    "$python" -m pip install -qq --disable-pip-version-check -r .venv/requirements.txt
    if [ -f "$hidden" ]; then mv "$hidden" "$visible"; fi
    cp requirements.txt .venv/requirements-installed.txt
  fi
  export PATH="$repo/.venv/bin:$PATH"
}

site_packages() { "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

# Compilers of torch's headers take up to 1.5 GB each.
build_jobs() {
  local cores memory
  cores=$(nproc)
  memory=$(awk '/^MemAvailable/ { print int($2 / 1500000) }' /proc/meminfo 2>/dev/null || echo "$cores")
  echo $((memory < 1 ? 1 : memory < cores ? memory : cores))
}

# configure <option>...: ends with one line that says what is missing when it fails.
configure() {
  local errors
  errors=$(mktemp)
  if ! cmake --preset release "$@" 2>"$errors"; then
    cat "$errors" >&2
    say "cannot build: $(awk '/^CMake Error/ { found = 1; next }
                              found && NF == 0 { if (text != "") exit; next }
                              found { sub(/^ +/, ""); if (/^Call Stack/) exit; text = text (text == "" ? "" : " ") $0 }
                              END { print text }' "$errors")"
    rm -f "$errors"
    exit 1
  fi
  cat "$errors" >&2
  rm -f "$errors"
}

# build <target>...: everything when no target is named. Leaves .venv/bin/mnemosyne and a .venv/bin/python
# that imports mnemosyne, both straight from the build folder.
build() {
  local options=(
    "-DPython_EXECUTABLE=$repo/$python"
    "-DMNEMOSYNE_CUDA=${MNEMOSYNE_CUDA:-AUTO}"
    "-DMNEMOSYNE_WERROR=$([ "${CI:-}" = true ] && echo ON || echo OFF)"
  )
  if command -v ccache >/dev/null; then options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
  if [ ! -f build/release/build.ninja ] || [ "${options[*]}" != "$(cat build/release/options.txt 2>/dev/null)" ]; then
    say "configuring build/release"
    configure "${options[@]}"
    echo "${options[*]}" >build/release/options.txt
  fi
  say "building"
  cmake --build build/release --parallel "$(build_jobs)" ${1:+--target "$@"}
  ln -sfn ../../build/release/cli/mnemosyne .venv/bin/mnemosyne
  echo "$repo/build/release/python" >"$(site_packages)/mnemosyne.pth"
}

install_debian_packages
make_venv
