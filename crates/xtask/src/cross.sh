#!/usr/bin/env bash
# Makes the metadata of Rust's standard library for one target, enough for `cargo check`:
#   cross.sh PREFIX TARGET
# The sources come from Debian's rust-src of exactly the installed compiler's version, by the mirror that apt on this
# machine uses already. Nothing outside of PREFIX is changed; what is there already is not made again.
set -euo pipefail
prefix=$1 target=$2
release=$(rustc -vV | sed -n 's/^release: //p')
library=$prefix/src/usr/src/rustc-$release/library
installed=$prefix/sysroot/lib/rustlib/$target/lib
mkdir -p "$prefix"

# A private apt state: the machine's own lists and sources stay as they are. Lists may be past their date, as they are
# on mirrors that stand still; their signatures are checked all the same.
fetch_sources() {
  local apt=$prefix/apt mirror version
  mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep '/debian/\?$' | head -1 || true)
  [ -n "$mirror" ] || { echo "apt knows no Debian mirror to get rust-src $release from" >&2; exit 3; }
  mkdir -p "$apt"/{etc/{preferences.d,apt.conf.d},state/lists/partial,cache/archives/partial}
  for suite in trixie-backports trixie sid; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
  done > "$apt/etc/sources.list"
  cat > "$apt/apt.conf" <<CONF
Dir::Etc "$apt/etc"; Dir::Etc::sourcelist "$apt/etc/sources.list"; Dir::Etc::sourceparts "-";
Dir::State "$apt/state"; Dir::State::status "/var/lib/dpkg/status"; Dir::Cache "$apt/cache";
Acquire::Languages "none"; Acquire::Check-Valid-Until "false"; APT::Sandbox::User "root";
CONF
  export APT_CONFIG=$apt/apt.conf
  apt-get update -q >/dev/null
  version=$(apt-cache madison rust-src | awk '{print $3}' | grep "^${release//./\\.}+" | head -1 || true)
  [ -n "$version" ] || { echo "Debian has no rust-src $release" >&2; exit 3; }
  (cd "$apt" && apt-get download -q "rust-src=$version")
  mkdir -p "$prefix/src"
  dpkg --fsys-tarfile "$apt"/rust-src_*.deb | tar -x -C "$prefix/src" --wildcards './usr/src/rustc-*/library/*'
  unset APT_CONFIG
  rm -rf "$apt"
}

# The compiler lets only itself build the standard library, hence RUSTC_BOOTSTRAP, for this one command.
build_metadata() {
  env -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET -u RUSTC_WRAPPER RUSTC_BOOTSTRAP=1 \
    CARGO_TARGET_DIR="$prefix/build" RUSTFLAGS=-Zforce-unstable-if-unmarked \
    cargo check -q --manifest-path "$library/sysroot/Cargo.toml" --locked --features backtrace --target "$target"
  mkdir -p "$installed"
  cp "$prefix/build/$target/debug/deps/"*.rmeta "$installed/"
  rm -rf "$prefix/build"
}

# Stands in for compiler and archiver: creates the files it is asked for.
write_stand_in() {
  cat > "$prefix/stand-in" <<'TOOL'
#!/bin/sh
for a in "$@"; do
  case "$a" in -E) echo '#pragma clang'; echo clang; exit 0;; --version) echo 'clang version 14.0.0'; exit 0;; esac
done
previous=
for a in "$@"; do
  case "$previous" in -o) : > "$a";; esac
  case "$a" in *.a|*.lib) [ -e "$a" ] || : > "$a";; esac
  previous=$a
done
TOOL
  chmod +x "$prefix/stand-in"
}

[ -d "$library" ] || fetch_sources
ls "$installed"/libstd*.rmeta >/dev/null 2>&1 || build_metadata
[ -x "$prefix/stand-in" ] || write_stand_in
