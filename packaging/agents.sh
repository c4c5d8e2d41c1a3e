#!/bin/sh
# Builds the agents that machines are given, a static file per architecture, into one folder: what AOT_AGENT_DIR names.
#
#   packaging/agents.sh [-p PROFILE] [-o FOLDER] [x86_64|aarch64 ...]    default: -p agent -o target/agents, both
#   packaging/agents.sh -g PACKAGE ...                                   unpacks Debian packages into target/cross/root
#
# This machine's own architecture takes a C compiler. The other one takes a compiler for it: what rustup and the PATH have
# (`rustup target add`, `aarch64-linux-gnu-gcc`), or, on Debian on x86_64, packages that are unpacked below target/cross;
# nothing is installed, and no root is needed. Exit status 75: the packages, or one that is new enough, cannot be had.
set -eu
here=$PWD
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
cross=$target/cross
root=$cross/root
own=$(uname -m)
profile=agent out=$target/agents get=
while getopts p:o:g option; do
  case $option in
  p) profile=$OPTARG ;;
  o) case $OPTARG in /*) out=$OPTARG ;; *) out=$here/$OPTARG ;; esac ;;
  g) get=yes ;;
  *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
say() { echo "agents.sh: $*" >&2; }
lacking() {
  say "$1"
  exit 75
}

# apt with lists of its own, which also has packages of arm64.
lists() {
  command -v apt-get > /dev/null && command -v dpkg-deb > /dev/null || lacking "this is no Debian: there are no packages"
  [ "$(dpkg --print-architecture)" = amd64 ] || lacking "packages for another architecture are taken on amd64 only"
  mkdir -p "$cross/lists/partial" "$cross/debs" "$root"
  cat > "$cross/apt.conf" << END
APT::Architectures { "amd64"; "arm64"; };
Dir::State::Lists "$cross/lists";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Sandbox::User "";
Debug::NoLocking "true";
END
  export APT_CONFIG="$cross/apt.conf"
  [ -e "$cross/listed" ] || apt-get -q update >&2 || lacking "apt-get update failed"
  touch "$cross/listed"
}
# unpacked PACKAGE...: each once.
unpacked() {
  for package in "$@"; do
    [ ! -e "$cross/debs/$package.done" ] || continue
    rm -rf "$cross/debs/now"
    mkdir "$cross/debs/now"
    (cd "$cross/debs/now" && apt-get -q download "$package" >&2) || lacking "there is no package $package"
    dpkg-deb -x "$cross"/debs/now/*.deb "$root"
    rm -rf "$cross/debs/now"
    touch "$cross/debs/$package.done"
  done
}
# needs PACKAGE PATTERN: the first dependency of that form.
needs() { apt-cache depends "$1" | sed -n "s/.*Depends: \\($2\\)\$/\\1/p" | head -n 1; }

# A compiler from Debian: rustc-web is the newest that a release has, and has a library for each architecture.
debian() {
  lists
  std=$(needs libstd-rust-web-dev 'libstd-rust-web-[0-9.]*')
  [ -n "$std" ] || lacking "there is no package rustc-web"
  gcc=$(needs gcc-aarch64-linux-gnu 'gcc-[0-9]*-aarch64-linux-gnu')
  version=${gcc#gcc-} version=${version%%-*}
  unpacked rustc-web "$std" "$(needs "$std" 'libllvm[0-9]*')" libstd-rust-web-dev libstd-rust-web-dev:arm64 \
    gcc-aarch64-linux-gnu "$gcc" "cpp-$version-aarch64-linux-gnu" binutils-aarch64-linux-gnu \
    "libgcc-$version-dev-arm64-cross" libc6-dev-arm64-cross libc6-arm64-cross linux-libc-dev-arm64-cross
  for tool in rustc aarch64-linux-gnu-gcc aarch64-linux-gnu-ar; do
    more=
    [ "$tool" != rustc ] || more="--sysroot '$root/usr'"
    printf "#!/bin/sh\nLD_LIBRARY_PATH='%s' exec '%s' %s \"\$@\"\n" \
      "$root/usr/lib/x86_64-linux-gnu" "$root/usr/bin/$tool" "$more" > "$cross/$tool"
    chmod 755 "$cross/$tool"
  done
  has=$("$cross/rustc" --version | sed 's/^rustc \([0-9]*\.[0-9]*\).*/\1/')
  wants=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  [ "$(printf '%s\n%s\n' "$wants" "$has" | sort -V | head -n 1)" = "$wants" ] ||
    lacking "rustc-web is $has, and $wants is wanted"
  export RUSTC="$cross/rustc"
  cc=$cross/aarch64-linux-gnu-gcc ar=$cross/aarch64-linux-gnu-ar
}
# build ARCH
build() {
  set -- "$1" rustc --locked --profile "$profile" -p aot-agent --bin aot-agent
  built=$target/$profile/aot-agent
  if [ "$1" != "$own" ]; then
    [ "$1" = aarch64 ] || lacking "$1 is built on x86_64, or with a toolchain of your own"
    cc=aarch64-linux-gnu-gcc ar=aarch64-linux-gnu-ar
    command -v "$cc" > /dev/null && [ -d "$(rustc --print sysroot)/lib/rustlib/aarch64-unknown-linux-gnu/lib" ] || debian
    export CARGO_TARGET_DIR="$cross/build" CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER="$cc"
    export CC_aarch64_unknown_linux_gnu="$cc" AR_aarch64_unknown_linux_gnu="$ar"
    set -- "$@" --target aarch64-unknown-linux-gnu
    built=$cross/build/aarch64-unknown-linux-gnu/$profile/aot-agent
  fi
  arch=$1
  shift
  cargo "$@" -- -C target-feature=+crt-static -C relocation-model=static
  mkdir -p "$out"
  cp "$built" "$out/.aot-agent-$arch"
  mv -f "$out/.aot-agent-$arch" "$out/aot-agent-$arch"
  say "$out/aot-agent-$arch"
}

if [ -n "$get" ]; then
  lists
  unpacked "$@"
  exit 0
fi
[ $# -gt 0 ] || set -- x86_64 aarch64
for arch in "$@"; do
  case $arch in
  # What is set for one must not be left for the next.
  x86_64 | aarch64) (build "$arch") ;;
  *)
    say "no agent for $arch"
    exit 2
    ;;
  esac
done
