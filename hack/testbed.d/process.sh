# Processes of the test bed. Each is started through a link $BED/bin/NAME, so that its command line says whose it is:
# a pid that another process has got since is never taken for ours.

make_bed() {
  ((${#BED} < 80)) || die "$BED is too long: sockets in it would have names that the kernel refuses"
  mkdir -p "$BED"/{bin,run,log}
  chmod 755 "$BED"
}

names() {
  local file
  for file in "$BED"/run/*.args; do
    [[ ! -e $file ]] || basename "$file" .args
  done
}

known() { [[ -n $1 && -e $BED/run/$1.args ]] || die "no process ${1:-without a name}; there are: $(names | tr '\n' ' ')"; }

# start NAME PROGRAM ARGUMENT... begins PROGRAM in the background.
start() {
  local name=$1 program=$2
  shift 2
  ln -sfn "$program" "$BED/bin/$name"
  printf '%s\0' "$@" >"$BED/run/$name.args"
  launch "$name"
}

launch() {
  local arguments
  mapfile -d '' -t arguments <"$BED/run/$1.args"
  # A session of its own: Ctrl-C on the command line is not for it.
  setsid "$BED/bin/$1" "${arguments[@]}" >>"$BED/log/$1.log" 2>&1 </dev/null &
  echo $! >"$BED/run/$1.pid"
  # For a moment the child is still this shell.
  until pid "$1" >/dev/null || ! kill -0 $! 2>/dev/null; do sleep 0.01; done
}

# Prints the pid of NAME if it runs.
pid() {
  local pid command
  pid=$(cat "$BED/run/$1.pid" 2>/dev/null) || return 1
  # A child that has not yet become the program has setsid's command line, which names it as well.
  command=$({ tr '\0' '\n' <"/proc/$pid/cmdline"; } 2>/dev/null | head -n 2) || return 1
  [[ $'\n'$command$'\n' == *$'\n'"$BED/bin/$1"$'\n'* ]] && echo "$pid"
}

# wait_until SECONDS WHAT COMMAND... waits until COMMAND succeeds, and gives up at once when a process has died.
wait_until() {
  local end=$((SECONDS + $1)) what=$2 name
  shift 2
  until "$@" >/dev/null 2>&1; do
    for name in $(names); do
      pid "$name" >/dev/null || { tail -n 20 "$BED/log/$name.log" >&2; die "$name ended while waiting for $what"; }
    done
    ((SECONDS < end)) || { tail -n 5 "$BED"/log/*.log >&2; die "no $what in time; the logs are in $BED/log"; }
    sleep 0.1
  done
}

accepts() { timeout 1 bash -c 'exec 3<>"/dev/tcp/${1%:*}/${1##*:}"' _ "$1"; }

# free_port HOST sets PORT: below the ephemeral range and the NodePorts, given out once.
GIVEN_OUT=" "
free_port() {
  while :; do
    PORT=$((20000 + RANDOM % 9000))
    [[ $GIVEN_OUT != *" $PORT "* ]] || continue
    ! accepts "$1:$PORT" 2>/dev/null || continue
    ! accepts "127.0.0.1:$PORT" 2>/dev/null || continue
    GIVEN_OUT+="$PORT "
    return
  done
}

gone() { ! pid "$1" >/dev/null; }

# stop NAME: what it keeps is thrown away, so there is nothing to wait for beyond a moment.
stop() {
  local pid tries
  pid=$(pid "$1") || return 0
  kill -CONT "$pid" 2>/dev/null || true
  kill -TERM "$pid" 2>/dev/null || true
  for ((tries = 0; tries < 20; tries++)); do
    gone "$1" && return
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

send_signal() {
  known "$1"
  local pid
  pid=$(pid "$1") || die "$1 does not run"
  kill -"$2" "$pid" || die "$2 is no signal"
  [[ $2 != KILL ]] || until gone "$1"; do sleep 0.02; done
}

start_again() {
  known "$1"
  gone "$1" || die "$1 runs already"
  launch "$1"
  case $1 in
    etcd) wait_until 30 "answer of etcd" accepts "$(<"$BED/etcd.address")" ;;
    kube-apiserver) wait_until 60 "answer of the API server" api_ready ;;
    nats-server) wait_until 30 "answer of NATS" accepts "$(<"$BED/nats.address")" ;;
    s3-server) wait_until 30 "answer of the S3 server" accepts "$(<"$BED/s3.address")" ;;
    tikv-server) wait_until 30 "answer of TiKV" accepts "$(<"$BED/tikv.address")" ;;
    containerd) wait_until 30 "answer of containerd" containerd_ready ;;
    kubelet) node_ready ;;
  esac
}

list_processes() {
  local name pid
  for name in $(names); do
    pid=$(pid "$name") || { printf '%-26s not running\n' "$name"; continue; }
    awk -v name="$name" '/^Pid:/ {pid = $2} /^State:/ {state = $3} /^VmRSS:/ {rss = $2}
      END {printf "%-26s pid %-8s %-12s %6d MiB\n", name, pid, state, rss / 1024}' "/proc/$pid/status"
  done
}

# Prints the pids of what is still ours: started just before its pid would have been noted, or one of containerd's
# shims, which outlive it by design.
strays() {
  local process argument
  for process in /proc/[0-9]*; do
    mapfile -d '' -t argument <"$process/cmdline" || continue
    if [[ ${argument[0]:-} == "$BED"/bin/* || ${argument[1]:-} == "$BED"/bin/* ]] \
      || [[ ${argument[0]:-} == *containerd-shim* && " ${argument[*]} " == *" $BED/containerd.sock "* ]]; then
      echo "${process#/proc/}"
    fi
  done 2>/dev/null
}

kill_strays() { kill_all "own processes" strays; }

# kill_all WHAT COMMAND... kills the processes whose pids COMMAND prints, until it prints none.
kill_all() {
  local what=$1 end=$((SECONDS + 20)) pids
  shift
  while pids=$("$@") && [[ -n $pids ]]; do
    ((SECONDS < end)) || die "$what cannot be killed: ${pids//$'\n'/ }"
    # shellcheck disable=SC2086 # one word a pid
    kill -KILL $pids 2>/dev/null || true
    sleep 0.05
  done
}
