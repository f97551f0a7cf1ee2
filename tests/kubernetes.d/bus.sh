# A NATS server that enforces the classes of subjects. Sourced by tests/kubernetes.sh.

test_bus() {
  say "a bus with logins"
  local system architect address
  system=s$(openssl rand -hex 16) architect=a$(openssl rand -hex 16)
  kubectl create secret generic batos-nats --from-literal=system="$system" --from-literal=architect="$architect"
  sed 's|image: nats:.*|image: localhost/nats:test|' manifests/nats/nats.yaml | kubectl apply -f -
  kubectl rollout status deployment/nats --timeout=60s
  address=$(kubectl get service nats -o jsonpath='{.spec.clusterIP}'):4222
  kubectl apply -f - <<YAML
apiVersion: batos.dev/v1alpha1
kind: Universe
metadata: { name: guarded }
spec: { bus: { url: "nats://$address", credentialsSecret: batos-nats } }
YAML
  prototype lamp guarded '  slots: [{ name: watts, value: 40 }]' | sed 's/name: lamp/name: guarded-lamp/' | kubectl apply -f -
  ready universe/guarded prototype/guarded-lamp
  at() { "$CARGO_TARGET_DIR/debug/batos" "$@" --universe guarded; }
  is "a sender's answer" 40 "$(at send guarded-lamp watts --nats "nats://$address")"
  if at eval '1 + 1' --nats "nats://$address" 2>"$work/refused"; then die "a sender evaluated source text"; fi
  cat "$work/refused"
  test_kubectl_logins
  is "the Architect's answer" 2 "$(at eval '1 + 1' --nats "nats://architect:$architect@$address")"
  if at eval '1 + 1' --nats "nats://architect:$system@$address" 2>"$work/refused"; then die "a wrong password was good"; fi

  say "passwords stand in the Secret alone"
  {
    kubectl get universes,prototypes,pods,deployments,configmaps,events -o yaml
    kubectl get pods -o name | xargs -n 1 kubectl logs --all-containers
  } >"$work/told"
  if grep -e "$system" -e "$architect" "$work/told"; then die "a password was told"; fi

  say "without its Secret a universe says so, and recovers by itself"
  kubectl apply -f - <<YAML
apiVersion: batos.dev/v1alpha1
kind: Universe
metadata: { name: locked }
spec: { bus: { url: "nats://$address", credentialsSecret: not-there } }
YAML
  says universe/locked PodsFailing
  kubectl get universe locked -o jsonpath='{.status.conditions[0].message}{"\n"}'
  kubectl create secret generic not-there --from-literal=system="$system" --from-literal=architect="$architect"
  ready universe/locked
  kubectl delete universe guarded locked
  kubectl delete prototype guarded-lamp
}

condition_is() { [[ $(kubectl get universe "$1" -o jsonpath="{.status.conditions[?(@.type=='$2')].status}") == "$3" ]]; }
status_of() { kubectl get universe "$1" -o jsonpath="{.status.$2}"; }
has_counted() { (($(status_of "$1" objects) > 50)); }

# What a universe says of itself; and how its bus and its store are, from here on the ground that is pulled from under it.
test_status() {
  say "a universe's status tells of objects, versions, bus and store"
  soon condition_is quickstart BusReachable True
  soon condition_is quickstart StoreReachable True
  is "the workers' version" "$("$CARGO_TARGET_DIR/debug/batos" --version | awk '{print $2}')" "$(status_of quickstart versions.batos)"
  soon has_counted quickstart
  kubectl get universes -o wide
  "$CARGO_TARGET_DIR/debug/batos" info --nats "$BATOS_TESTBED_NATS"

  say "without NATS, and without TiKV, it says so, and recovers by itself"
  hack/testbed kill nats-server
  says universe/quickstart BusUnreachable
  condition_is quickstart BusReachable False
  is "phase" Failing "$(status_of quickstart phase)"
  hack/testbed start nats-server
  ready universe/quickstart
  hack/testbed tikv kill
  says universe/quickstart StoreUnreachable
  condition_is quickstart StoreReachable False
  kubectl get universe quickstart -o jsonpath='{.status.conditions[0].message}{"\n"}'
  hack/testbed tikv start
  ready universe/quickstart
  is "phase" Running "$(status_of quickstart phase)"
}
