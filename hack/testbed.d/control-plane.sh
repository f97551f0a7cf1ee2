# etcd, API server, controller manager, scheduler, and kwok, which plays nodes. The API server listens on the bridge, so
# that the same kubeconfig serves this machine and pods.

SERVICE_NETWORK=10.96.0.0/16
SERVICE_API=10.96.0.1

# The links of the commands stand in a directory of their own: PATH should get no more than those.
kubectl() { "$BED/clients/kubectl" --kubeconfig "$BED/admin.kubeconfig" "$@"; }

# certificate NAME SUBJECT USAGE [SAN]. X.509 version 3: rustls refuses version 1.
certificate() {
  local at=$BED/pki/$1
  {
    echo "basicConstraints=CA:FALSE"
    echo "keyUsage=digitalSignature"
    echo "extendedKeyUsage=$3"
    [[ -z ${4:-} ]] || echo "subjectAltName=$4"
  } >"$at.extensions"
  openssl ecparam -name prime256v1 -genkey -noout -out "$at.key"
  openssl req -new -key "$at.key" -subj "$2" | openssl x509 -req -CA "$BED/pki/ca.crt" -CAkey "$BED/pki/ca.key" \
    -set_serial "0x$(openssl rand -hex 8)" -days 365 -sha256 -extfile "$at.extensions" -out "$at.crt" 2>/dev/null
}

# kubeconfig NAME SUBJECT: a client certificate, and $BED/NAME.kubeconfig, which holds it.
kubeconfig() {
  certificate "$1" "$2" clientAuth
  local ca crt key
  ca=$(base64 -w0 "$BED/pki/ca.crt") crt=$(base64 -w0 "$BED/pki/$1.crt") key=$(base64 -w0 "$BED/pki/$1.key")
  cat >"$BED/$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
current-context: testbed
contexts: [{name: testbed, context: {cluster: testbed, user: $1}}]
clusters: [{name: testbed, cluster: {server: "https://$(<"$BED/api.address")", certificate-authority-data: $ca}}]
users: [{name: $1, user: {client-certificate-data: $crt, client-key-data: $key}}]
YAML
  chmod 600 "$BED/$1.kubeconfig"
}

credentials() {
  mkdir -m 700 "$BED/pki"
  openssl ecparam -name prime256v1 -genkey -noout -out "$BED/pki/ca.key"
  openssl req -x509 -new -key "$BED/pki/ca.key" -subj /CN=testbed -days 365 -sha256 -out "$BED/pki/ca.crt" \
    -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature
  openssl ecparam -name prime256v1 -genkey -noout -out "$BED/pki/accounts.key"
  openssl ec -in "$BED/pki/accounts.key" -pubout -out "$BED/pki/accounts.pub" 2>/dev/null
  certificate apiserver /CN=kube-apiserver serverAuth \
    "IP:$GATEWAY,IP:$SERVICE_API,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
  kubeconfig admin /O=system:masters/CN=admin
  kubeconfig controller-manager /CN=system:kube-controller-manager
  kubeconfig scheduler /CN=system:kube-scheduler
  kubeconfig proxy /CN=system:kube-proxy
  kubeconfig node /O=system:nodes/CN=system:node:$NODE
}

api_ready() { kubectl get --raw /readyz --request-timeout=2s; }

control_plane_up() {
  local tools=$KUBE_BIN/kubetools api etcd peer
  free_port "$GATEWAY"; api=$PORT
  free_port 127.0.0.1; etcd=127.0.0.1:$PORT
  free_port 127.0.0.1; peer=http://127.0.0.1:$PORT
  echo "$GATEWAY:$api" >"$BED/api.address"
  echo "$etcd" >"$BED/etcd.address"
  mkdir -p "$BED/clients"
  ln -s "$tools" "$BED/clients/kubectl"
  ln -s "$tools" "$BED/clients/helm"
  credentials

  # No fsync: losing the machine's power loses the bed, killing etcd does not.
  start etcd "$tools" --name=testbed --data-dir="$BED/etcd" --unsafe-no-fsync --log-level=warn \
    --listen-client-urls="http://$etcd" --advertise-client-urls="http://$etcd" \
    --listen-peer-urls="$peer" --initial-advertise-peer-urls="$peer" --initial-cluster="testbed=$peer"
  start kube-apiserver "$tools" --etcd-servers="http://$etcd" --bind-address="$GATEWAY" --secure-port="$api" \
    --advertise-address="$GATEWAY" --service-cluster-ip-range="$SERVICE_NETWORK" \
    --tls-cert-file="$BED/pki/apiserver.crt" --tls-private-key-file="$BED/pki/apiserver.key" \
    --client-ca-file="$BED/pki/ca.crt" --cert-dir="$BED/pki" \
    --kubelet-client-certificate="$BED/pki/admin.crt" --kubelet-client-key="$BED/pki/admin.key" \
    --kubelet-preferred-address-types=InternalIP \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$BED/pki/accounts.pub" \
    --service-account-signing-key-file="$BED/pki/accounts.key" \
    --authorization-mode=Node,RBAC --allow-privileged=true --profiling=false
  wait_until 90 "answer of the API server" api_ready
  # The default of 20 calls a second alone costs seconds at the start.
  start kube-controller-manager "$tools" --kubeconfig="$BED/controller-manager.kubeconfig" \
    --use-service-account-credentials=true --service-account-private-key-file="$BED/pki/accounts.key" \
    --root-ca-file="$BED/pki/ca.crt" --cluster-signing-cert-file="$BED/pki/ca.crt" \
    --cluster-signing-key-file="$BED/pki/ca.key" --leader-elect=false --secure-port=0 \
    --flex-volume-plugin-dir="$BED/volume-plugins" --kube-api-qps=200 --kube-api-burst=400
  start kube-scheduler "$tools" --kubeconfig="$BED/scheduler.kubeconfig" --leader-elect=false --secure-port=0 \
    --kube-api-qps=200 --kube-api-burst=400
  "$tools" kwok-manifests crd | kubectl apply -f - >/dev/null
  kubectl wait --for=condition=Established crd/stages.kwok.x-k8s.io --timeout=30s >/dev/null
  "$tools" kwok-manifests stages | kubectl apply -f - >/dev/null
  start kwok "$tools" --kubeconfig="$BED/admin.kubeconfig" --enable-crds=Stage --cidr=10.245.0.0/16 \
    --manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake --node-lease-duration-seconds=40
  # Pods are refused before it exists.
  wait_until 60 "service account of the default namespace" kubectl get serviceaccount default
}

# What a test finds in the cluster from the start.
cluster_up() {
  mkdir -p -m 777 "$BED"/volumes/{0,1,2,3,4,5,6,7}
  chmod 777 "$BED"/volumes/*
  kubectl apply -f "$ROOT/tests/kubernetes/nodes.yaml" >/dev/null
  local volume
  for volume in 0 1 2 3 4 5 6 7; do
    sed "s|@NAME@|volume-$volume|; s|@PATH@|$BED/volumes/$volume|; s|@NODE@|$NODE|" "$ROOT/tests/kubernetes/volume.yaml"
    echo ---
  done | kubectl apply -f - >/dev/null
  kubectl wait --for=condition=Ready node --all --timeout=60s >/dev/null
}
