#!/usr/bin/env bash
# The operator and its chart on a real control plane, with real pods on a real node. Needs root: see hack/testbed.
# --keep leaves everything up when it ends, to look at, and says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. hack/lib.sh
for part in leader bus faults drift charts snapshots kubectl proposals; do . "tests/kubernetes.d/$part.sh"; done

[[ ${1:-} == --keep ]] && keep=1 || keep=0
work=$(mktemp -d)
export BATOS_TESTBED_DIR=$work/bed # its own, so that a test bed for TiKV alone is not in the way
up=0

finish() {
  local status=$?
  trap - EXIT
  ((status == 0 || up == 0)) || tell_state >&2 || true
  if ((up && keep)); then
    say "look: export BATOS_TESTBED_DIR=$BATOS_TESTBED_DIR; eval \"\$(hack/testbed env)\"; end it: hack/testbed down"
    exit "$status"
  fi
  ((up == 0)) || hack/testbed down || status=1
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT

tell_state() {
  say "FAILED: this is how things stand"
  kubectl get universes,prototypes,codexes,proposals,proposaldecisions,snapshots,modelpools,facets,jobs,deployments,statefulsets,pods -A -o wide
  kubectl get events -A --sort-by=.metadata.creationTimestamp | tail -n 30
  local pod
  for pod in $(kubectl get pods -o name); do
    echo "---- $pod"
    kubectl logs "$pod" --tail=40 2>&1
  done
}

# ready KIND/NAME... waits until all say so for the spec as it is now.
ready() { kubectl wait --for=condition=Ready --timeout=120s "$@"; }

# says KIND/NAME REASON waits until that is the reason of its condition Ready.
says() { kubectl wait --timeout=60s "$1" --for=jsonpath='{.status.conditions[?(@.type=="Ready")].reason}'="$2"; }

send() { "$CARGO_TARGET_DIR/debug/batos" send "$@" --nats "$BATOS_TESTBED_NATS"; }

# is WHAT EXPECTED FOUND
is() { [[ $2 == "$3" ]] || { echo "$1: expected $2, found $3" >&2; return 1; }; }

# soon COMMAND... within a minute
soon() {
  local end=$((SECONDS + 60))
  until "$@"; do
    ((SECONDS < end)) || { echo "not within a minute: $*" >&2; return 1; }
    sleep 0.2
  done
}

models() { kubectl get --raw "/api/v1/namespaces/default/services/small-models:http/proxy/v1/models"; }
has_adapter() { models | grep -q '"ledger-'; }
has_no_adapter() { ! has_adapter; }
prototype() {
  printf 'apiVersion: batos.dev/v1alpha1\nkind: Prototype\nmetadata: { name: %s }\nspec:\n  universe: %s\n%s\n' "$1" "$2" "$3"
}

need_tools
say "building batos with the operator, and the fake engine"
build
hack/testbed build

say "images"
tag=localhost/batos:test
adapter=tests/fake-vllm/adapters/ledger
hack/image "$work/batos.tar" "$tag" "$CARGO_TARGET_DIR/debug/batos" -- /bin/batos
hack/image "$work/engine.tar" localhost/fake-vllm:test "$CARGO_TARGET_DIR/debug/fake-vllm" \
  "$adapter/adapter_config.json=/adapters/ledger/adapter_config.json" \
  "$adapter/adapter_model.safetensors=/adapters/ledger/adapter_model.safetensors" -- /bin/fake-vllm

say "control plane and node"
up=1
hack/image "$work/nats.tar" localhost/nats:test "$(nats_server)" -- /bin/nats-server
hack/testbed up "$work/batos.tar" "$work/engine.tar" "$work/nats.tar"
eval "$(hack/testbed env)"

say "helm install"
test_charts
chart=(batos charts/batos --wait --timeout 2m --set image.repository=localhost/batos --set image.tag=test
  --set nats.url="$BATOS_TESTBED_NATS" --set leaderElection.leaseSeconds=6 --set driftCheckSeconds=3
  --set proposalCheckSeconds=3)
helm install "${chart[@]}" --set defaultStore="$BATOS_TIKV"

say "the quickstart on TiKV"
kubectl apply -f manifests/quickstart
ready universe/quickstart prototype/account
kubectl get universes,prototypes
is "balance" 100 "$(send account deposit: 100)"
BATOS_E2E_NATS=$BATOS_TESTBED_NATS "$(e2e_python)" -m pytest -q tests/e2e -m remote
is "kubectl get proto" True "$(kubectl get prototype account --no-headers | awk '{print $3}')"

say "an edited prototype reaches the living object, and what was made and stored there stays"
balance=$(send account balance)
kubectl patch prototype account --type=json --patch \
  '[{"op": "add", "path": "/spec/slots/-", "value": {"name": "double", "method": "double = ( balance: balance * 2. ^balance )"}}]'
kubectl wait prototype/account --timeout=60s --for=jsonpath='{.status.observedGeneration}'=2
ready prototype/account
is "balance doubled" $((balance * 2)) "$(send account double)"
is "balance after a made method" $((balance * 2 - 1)) "$(send account withdraw: 1 | head -n 1)"

say "what is wrong is said where it is"
prototype bad quickstart '  slots: [{ name: x, method: "x = ( 1 + )" }]' | kubectl apply -f -
says prototype/bad SyntaxError
kubectl get prototype bad -o jsonpath='{.status.conditions[0].message}{"\n"}' | grep 'line 1, column'
kubectl delete prototype bad
if prototype both quickstart '  slots: [{ name: x, value: 1, method: "x = ( 1 )" }]' | kubectl apply -f - 2>"$work/refused"; then
  die "a slot with both value and method was accepted"
fi
cat "$work/refused"
prototype child quickstart '  parents: [elder]' | kubectl apply -f -
says prototype/child ParentMissing
prototype elder quickstart '  slots: [{ name: age, value: 70 }]' | kubectl apply -f -
ready prototype/elder prototype/child
is "an inherited slot" 70 "$(send child age)"
prototype early nowhere '' | kubectl apply -f -
says prototype/early UniverseMissing

test_kubectl
test_proposals

say "new recordings roll the workers, which go on with the same objects"
old=$(kubectl get pods -l batos.dev/universe=quickstart -o name)
kubectl patch universe quickstart --type=json --patch \
  '[{"op": "add", "path": "/spec/mind/recorded/-", "value": {"request": "none", "answer": "none"}}]'
kubectl wait --for=delete --timeout=60s $old
ready universe/quickstart
is "balance after the roll" $((balance * 2 - 1)) "$(send account balance)"

say "a new operator changes nothing that is as it should be"
# The rest of a kind's objects come and go with what is tested.
versions() {
  kubectl get universes,prototypes,deployments,configmaps -l app.kubernetes.io/component!=operator \
    -o jsonpath='{range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{"\n"}{end}'
}
before=$(versions)
[[ $before == *Prototype/account* ]]
kubectl rollout restart deployment/batos-operator
kubectl rollout status deployment/batos-operator --timeout=60s
prototype late quickstart '' | kubectl apply -f -
ready prototype/late
diff <(echo "$before") <(versions | grep -v ^Prototype/late)

test_leader
kubectl delete namespace court
test_drift
test_deletion
test_status
test_roll
test_bus
test_faults

say "facets: an adapter is loaded on the pool's pod, and unloaded when its facet goes"
sed 's|image: .*|image: localhost/fake-vllm:test|' manifests/facets/facets.yaml | kubectl apply -f -
ready modelpool/small facet/ledger
kubectl get modelpools,facets -o wide
models
has_adapter
kubectl logs deployment/small-models | grep load_lora_adapter
kubectl delete pod -l batos.dev/pool=small
soon has_adapter
ready facet/ledger
kubectl patch facet ledger --type=merge --patch '{"spec": {"adapter": {"path": "/adapters/nothing"}}}'
says facet/ledger LoadFailed
kubectl patch facet ledger --type=merge --patch '{"spec": {"adapter": {"path": "/adapters/ledger"}}}'
ready facet/ledger
kubectl delete facet ledger --timeout=60s
soon has_no_adapter
kubectl delete modelpool small

say "without a default store: a file on a volume, which outlives its worker"
helm upgrade "${chart[@]}"
says universe/quickstart StoreChanged
kubectl patch universe quickstart --type=merge --patch "{\"spec\": {\"store\": {\"tikv\": {\"endpoints\": [\"${BATOS_TIKV#tikv://}\"]}}}}"
ready universe/quickstart
if kubectl patch universe quickstart --type=merge --patch '{"spec": {"store": {"tikv": {"endpoints": ["other:1"]}}}}' 2>"$work/refused"; then
  die "the store of a universe was changed"
fi
cat "$work/refused"
printf 'apiVersion: batos.dev/v1alpha1\nkind: Universe\nmetadata: { name: filed }\nspec: {}\n' | kubectl apply -f -
prototype lamp filed '  slots: [{ name: watts, value: 40 }]' | kubectl apply -f -
ready universe/filed prototype/lamp
send lamp watts: 75 --universe filed
kubectl delete pod filed-uvm-0
watts_are() { [[ $(send lamp watts --universe filed 2>/dev/null) == "$1" ]]; }
soon watts_are 75
ready universe/filed

test_snapshots
test_buckets

say "helm uninstall leaves what people wrote; a deleted universe takes its workers along"
kubectl get events
helm uninstall batos --wait
kubectl get universes,prototypes
kubectl delete universe --all
kubectl wait --for=delete --timeout=60s deployment/quickstart-uvm statefulset/filed-uvm
say "all as it should be"
