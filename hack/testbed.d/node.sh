# The real node: containerd and runc of the distribution, kubelet and kube-proxy, pods on the bridge.
# Whatever it changes on the machine is noted first or has a name of its own, so that node_down can put it back.

NODE=node-0
CGROUP=batos-testbed
# Where containerd, CNI and the kubelet leave things whatever they are told.
HABITATS=(/run/containerd /var/lib/cni /var/lib/kubelet /var/log/containers)
# The kubelet overwrites these.
SYSCTLS=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes)

# Prints the directories that hold cgroup $CGROUP: one a hierarchy where the machine has cgroup v1, else one.
cgroups() {
  local hierarchy
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    echo "/sys/fs/cgroup/$CGROUP"
  else
    for hierarchy in /sys/fs/cgroup/*/; do
      [[ ! -e $hierarchy/cgroup.procs ]] || echo "$hierarchy$CGROUP"
    done
  fi
}

cgroups_up() {
  local directory file
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    echo "+cpu +cpuset +memory +pids +io" >/sys/fs/cgroup/cgroup.subtree_control
  fi
  # On v1 the kubelet's cgroupRoot must be there in every hierarchy, and a cpuset is empty until it is set.
  for directory in $(cgroups); do
    mkdir -p "$directory"
    for file in cpuset.cpus cpuset.mems; do
      [[ ! -e $directory/$file || -e /sys/fs/cgroup/cgroup.controllers ]] || cat "$directory/../$file" >"$directory/$file"
    done
  done
}

load_images() {
  local image
  [[ -e $BED/containerd.sock ]] || die "the node is not up"
  for image in "$@"; do
    [[ -f $image ]] || die "$image is no file"
    ctr --address "$BED/containerd.sock" --namespace k8s.io images import "$image" >/dev/null \
      || die "$image could not be loaded"
  done
}

containerd_ready() { ctr --address "$BED/containerd.sock" version; }

node_up() {
  mkdir -p "$BED"/{kubelet,cni,node}
  local name
  for name in "${SYSCTLS[@]}"; do
    echo "$name = $(sysctl -n "$name")"
  done >"$BED/node/sysctl"
  for name in "${HABITATS[@]}"; do
    [[ -e $name ]] || echo "$name"
  done >"$BED/node/new"
  cgroups_up
  containerd_up
  load_images "$KUBE_BIN/pause.tar" "$@"
  kubelet_up
  kube_proxy_up
  node_ready
}

containerd_up() {
  # hairpinMode: a pod reaches itself through a Service, also where the kernel filters bridged packets.
  cat >"$BED/cni/10-testbed.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "$BRIDGE", "plugins": [{
  "type": "bridge", "bridge": "$BRIDGE", "isGateway": false, "ipMasq": false, "hairpinMode": true,
  "ipam": {"type": "host-local", "dataDir": "$BED/node/addresses",
    "ranges": [[{"subnet": "$POD_NETWORK", "rangeStart": "${GATEWAY%.*}.10", "gateway": "$GATEWAY"}]],
    "routes": [{"dst": "$SERVICE_NETWORK", "gw": "$GATEWAY"}]}}]}
JSON
  # restrict_oom_score_adj: negative scores need CAP_SYS_RESOURCE, which containers and small machines lack.
  cat >"$BED/node/containerd.toml" <<TOML
version = 2
root = "$BED/node/containerd"
state = "$BED/node/run"
[grpc]
  address = "$BED/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$BED/cni"
[plugins."io.containerd.internal.v1.opt"]
  path = "$BED/node/opt"
TOML
  start containerd "$(command -v containerd)" --config "$BED/node/containerd.toml"
  wait_until 30 "answer of containerd" containerd_ready
}

kubelet_up() {
  certificate kubelet "/O=system:nodes/CN=system:node:$NODE" serverAuth "IP:$GATEWAY,DNS:$NODE"
  cat >"$BED/node/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP
oomScoreAdj: 0
containerRuntimeEndpoint: unix://$BED/containerd.sock
address: $GATEWAY
healthzPort: 0
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $BED/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $BED/pki/kubelet.crt
tlsPrivateKeyFile: $BED/pki/kubelet.key
makeIPTablesUtilChains: false
resolvConf: /etc/resolv.conf
podLogsDir: $BED/node/logs
volumePluginDir: $BED/volume-plugins
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 200Mi, nodefs.available: 1%, imagefs.available: 1%}
maxPods: 50
syncFrequency: 10s
fileCheckFrequency: 0s
volumeStatsAggPeriod: 0s
YAML
  local labels=nvidia.com/gpu.present=true,nvidia.com/gpu.count=1,nvidia.com/gpu.memory=8192
  start kubelet "$KUBE_BIN/nodetools" --config="$BED/node/kubelet.yaml" --kubeconfig="$BED/node.kubeconfig" \
    --root-dir="$BED/kubelet" --cert-dir="$BED/pki" --hostname-override="$NODE" --node-ip="$GATEWAY" \
    --node-labels="$labels" --v=2
}

kube_proxy_up() {
  ! nft list table ip kube-proxy >/dev/null 2>&1 || die "this machine has a kube-proxy already (nft list table ip kube-proxy)"
  : >"$BED/node/nft-tables-are-ours"
  cat >"$BED/node/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: $NODE
clientConnection: {kubeconfig: $BED/proxy.kubeconfig}
clusterCIDR: $POD_NETWORK
healthzBindAddress: ""
metricsBindAddress: ""
nodePortAddresses: [127.0.0.0/8]
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nftables: {masqueradeAll: true}
YAML
  start kube-proxy "$KUBE_BIN/nodetools" --config="$BED/node/kube-proxy.yaml"
}

node_has_gpu() { [[ $(kubectl get node "$NODE" -o 'jsonpath={.status.allocatable.nvidia\.com/gpu}') == 1 ]]; }

# Patching the status is how Kubernetes lets an administrator advertise an extended resource. A kubelet that starts
# takes those it does not know back to 0, so this comes after each start.
advertise_gpu() {
  node_has_gpu || {
    kubectl patch node "$NODE" --subresource=status --type=merge \
      --patch '{"status": {"capacity": {"nvidia.com/gpu": "1"}, "allocatable": {"nvidia.com/gpu": "1"}}}'
    return 1
  }
}

node_ready() {
  wait_until 60 "Ready of $NODE" kubectl wait --for=condition=Ready "node/$NODE" --timeout=1s
  wait_until 30 "GPU of $NODE" advertise_gpu
}

# Works on whatever is left of a node, also when neither the API server nor containerd answered any more.
node_down() {
  [[ -d $BED/node ]] || return 0
  local directory file id
  # Until their cgroups are empty: a process that is dying still holds its mounts.
  kill_all "processes of pods" pod_processes
  kill_strays
  for file in "$BED"/node/run/io.containerd.runtime.v2.task/k8s.io/*/; do
    id=$(basename "$file")
    rm -rf "/run/containerd/runc/k8s.io/$id"
    [[ ! -e $file/address ]] || rm -f "$(sed 's|^unix://||' "$file/address")"
  done
  for file in /var/lib/cni/results/"$BRIDGE"-*; do
    id=${file#*/"$BRIDGE"-}
    rm -f "$file" "/var/lib/cni/results/cni-loopback-${id%-eth0}-lo"
  done
  for file in /var/log/containers/*.log; do
    [[ $(readlink "$file") != "$BED"/* ]] || rm -f "$file"
  done
  [[ ! -e $BED/node/new ]] || xargs -r rm -rf <"$BED/node/new"
  if [[ -e $BED/node/nft-tables-are-ours ]]; then
    for file in ip ip6; do nft delete table "$file" kube-proxy 2>/dev/null || true; done
  fi
  awk -v bed="$BED/" 'index($2, bed) == 1 {print $2}' /proc/mounts | sort -r | while read -r file; do
    umount -l "$file" || true
  done
  for directory in $(cgroups); do
    find "$directory" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
  [[ ! -e $BED/node/sysctl ]] || sysctl -q -p "$BED/node/sysctl" >/dev/null || true
}

pod_processes() {
  local directory
  for directory in $(cgroups); do
    find "$directory" -name cgroup.procs -exec cat {} + 2>/dev/null || true
  done | sort -u
}
