# The pods' bridge, NATS, an S3 server and TiKV. Where there is a bridge, both listen on its address: it is the same one for this
# machine and for pods, and nobody outside reaches it.

BRIDGE=batos-testbed
GATEWAY=10.244.250.1
POD_NETWORK=10.244.250.0/24

network_up() {
  ! ip link show "$BRIDGE" >/dev/null 2>&1 \
    || die "there is a bridge $BRIDGE already, of the bed in $(ip -j link show "$BRIDGE" | sed -n 's/.*"ifalias":"\([^"]*\)".*/\1/p')"
  ip link add "$BRIDGE" type bridge
  ip link set "$BRIDGE" alias "$BED"
  ip addr add "$GATEWAY/24" dev "$BRIDGE"
  ip link set "$BRIDGE" up
  # From a pod to a Service, and on to a pod: over this bridge only.
  sysctl -q -w "net.ipv4.conf.$BRIDGE.forwarding=1"
}

# Only the bridge of this bed.
network_down() {
  command -v ip >/dev/null || return 0
  ! ip -j link show "$BRIDGE" 2>/dev/null | grep -qF "\"ifalias\":\"$BED\"" || ip link del "$BRIDGE"
}

has_network() { ip link show "$BRIDGE" >/dev/null 2>&1 && [[ -e $BED/nats.address ]]; }

nats_up() {
  local program
  program=$(nats_server)
  free_port "$GATEWAY"
  echo "$GATEWAY:$PORT" >"$BED/nats.address"
  start nats-server "$program" --addr "$GATEWAY" --port "$PORT" --jetstream --store_dir "$BED/nats"
  start nats-loopback "$(command -v socat)" "TCP-LISTEN:$PORT,bind=127.0.0.1,fork,reuseaddr" "TCP:$GATEWAY:$PORT"
  wait_until 30 "answer of NATS" accepts "$GATEWAY:$PORT"
}

# Its keys are of this bed only.
s3_up() {
  mkdir -p "$BED/s3/images"
  free_port "$GATEWAY"
  echo "$GATEWAY:$PORT" >"$BED/s3.address"
  (umask 077 && openssl rand -hex 16 >"$BED/s3.secret")
  start s3-server "$S3_BIN/s3s-fs" --host "$GATEWAY" --port "$PORT" --access-key testbed \
    --secret-key "$(<"$BED/s3.secret")" "$BED/s3"
  wait_until 30 "answer of the S3 server" accepts "$GATEWAY:$PORT"
}

tikv_up() {
  if [[ -e $BED/tikv.address ]]; then
    ! pid tikv-server >/dev/null || die "TiKV is up already: $(<"$BED/tikv.address") (hack/testbed tikv down)"
    tikv_down # what one that was killed has left
  fi
  local host=127.0.0.1 address
  make_bed
  ! has_network || host=$GATEWAY
  free_port "$host"
  address=$host:$PORT
  free_port "$host"
  echo "$host:$PORT" >"$BED/tikv.control"
  echo "$address" >"$BED/tikv.address"
  # batos puts a prefix before all its keys; without -prefix they would share one region.
  start tikv-server "$TIKV_BIN/tikv-server" -addr "$address" -control "$host:$PORT" -data "$BED/tikv" -regions 8 -prefix batos/
  wait_until 30 "answer of TiKV" accepts "$address"
}

tikv_down() {
  stop tikv-server
  until gone tikv-server; do sleep 0.02; done
  rm -rf "$BED"/tikv "$BED"/tikv.* "$BED"/run/tikv-server.* "$BED/bin/tikv-server" "$BED/log/tikv-server.log"
  [[ -n $(names) ]] || rm -rf "$BED"
}
