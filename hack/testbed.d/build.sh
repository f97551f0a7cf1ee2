# Building what the bed runs, once for each state of its sources.

# What a node needs beside our own binaries. The versions are those of Debian 12, which the bed is tried on.
NODE_PACKAGES=("containerd=1.6.*" "runc=1.1.*" "containernetworking-plugins=1.1.*" "nftables=1.0.*" iproute2 openssl socat)
NODE_COMMANDS=(containerd containerd-shim-runc-v2 ctr runc /usr/lib/cni/bridge nft ip openssl socat)

# Prints the directory of the binaries of tests/NAME; its name follows from the sources.
built() {
  local digest
  digest=$(cd "$ROOT/tests/$1" && find . -type f \( -name '*.go' ! -name '*_test.go' ! -path './cmd/probe/*' -o -name 'go.*' -o -name '*.c' \) -print0 \
    | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
  echo "$BATOS_CACHE/testbed/$1-$digest"
}

go_build() { # OUT DIRECTORY PACKAGE [FLAG...]
  local out=$1 directory=$2 package=$3
  shift 3
  (cd "$directory" && CGO_ENABLED=0 GOFLAGS="-buildvcs=false -mod=readonly" nice go build -trimpath "$@" -o "$out.$$" "$package") \
    || die "$package in $directory does not build"
  mv "$out.$$" "$out"
}

build_tikv() {
  TIKV_BIN=$(built tikv)
  [[ ! -x $TIKV_BIN/tikv-server ]] || return 0
  need go "install Go 1.25 or newer (https://go.dev/dl)"
  say "building the TiKV test server (some minutes, once)"
  mkdir -p "$TIKV_BIN"
  go_build "$TIKV_BIN/tikv-server" "$ROOT/tests/tikv" . -ldflags "-s -w"
}

# A server of S3's protocol that verifies signatures, from its registry; the version that it is tried with.
S3_VERSION=0.14.1
build_s3() {
  S3_BIN=$BATOS_CACHE/testbed/s3s-fs-$S3_VERSION/bin
  [[ ! -x $S3_BIN/s3s-fs ]] || return 0
  need cargo "install Rust (https://rustup.rs)"
  say "building s3s-fs $S3_VERSION (some minutes, once)"
  local work
  work=$(mktemp -d "$BATOS_CACHE/s3s-fs.XXXXXX")
  CARGO_TARGET_DIR=$work nice cargo install --quiet --locked --debug --features binary --version "=$S3_VERSION" \
    --root "$BATOS_CACHE/testbed/s3s-fs-$S3_VERSION" --no-track s3s-fs || { rm -rf "$work"; die "s3s-fs does not build"; }
  rm -rf "$work"
}

build_kubernetes() {
  node_packages
  KUBE_BIN=$(built kubernetes)
  [[ ! -e $KUBE_BIN/pause.tar ]] || return 0
  need go "install Go 1.26 or newer (https://go.dev/dl)"
  need cc "install a C compiler"
  say "building the Kubernetes control plane and node (10 minutes and more from nothing, once)"
  mkdir -p "$KUBE_BIN"
  local sources=$ROOT/tests/kubernetes flags="-s -w" version package
  version=$(awk '$1 == "k8s.io/kubernetes" {print $2; exit}' "$sources/go.mod")
  # Without a version that looks like one, helm's and kubectl's comparisons fail.
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$(cut -d. -f2 <<<"$version")"
    flags+=" -X $package.gitTreeState=clean -X $package.gitCommit=unknown -X $package.buildDate=1970-01-01T00:00:00Z"
  done
  go_build "$KUBE_BIN/kubetools" "$sources" ./cmd/kubetools -ldflags "$flags"
  go_build "$KUBE_BIN/nodetools" "$sources" ./cmd/nodetools -ldflags "$flags"
  cc -Os -static -s -o "$KUBE_BIN/pause" "$sources/pause.c" || die "pause.c does not build"
  # Last: it marks the build as whole.
  "$HACK/image" "$KUBE_BIN/pause.tar" localhost/pause:1 "$KUBE_BIN/pause" -- /bin/pause
}

node_packages() {
  local command missing=()
  for command in "${NODE_COMMANDS[@]}"; do
    command -v "$command" >/dev/null || missing+=("$command")
  done
  ((${#missing[@]} > 0)) || return 0
  local install="apt-get install --no-install-recommends ${NODE_PACKAGES[*]}"
  command -v apt-get >/dev/null || die "missing: ${missing[*]}; without apt-get, install them yourself"
  if [[ $(id -u) != 0 ]]; then
    say "missing for the node: ${missing[*]}; as root: $install"
    return 0
  fi
  say "installing Debian packages for the node, since there is no ${missing[*]}: ${NODE_PACKAGES[*]}"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends "${NODE_PACKAGES[@]}"; } \
    >&2 </dev/null || die "the packages could not be installed: $install"
}
