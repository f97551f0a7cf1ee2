# What the cluster loses and gets back. Sourced by tests/kubernetes.sh.

because() { kubectl get "$1" "${@:3}" -o jsonpath='{.status.conditions[?(@.type=="Ready")].reason}' | grep -qxE "$2"; }
# The longest pause between two tries is two minutes.
recovers() { kubectl wait --for=condition=Ready --timeout=200s "$@"; }
slots() { printf '{"spec": {"slots": [{"name": "count", "value": 1}, {"name": "more", "value": %s}]}}' "$1"; }

test_faults() {
  prototype survivor quickstart '  slots: [{ name: count, value: 1 }]' | kubectl apply -f -
  ready prototype/survivor
  send survivor count: 41

  say "the store is killed: what is applied says so, and recovers by itself"
  hack/testbed tikv kill
  kubectl patch prototype survivor --type=merge --patch "$(slots 2)"
  soon because prototype/survivor 'ApplyFailed|Unreachable'
  kubectl get prototype survivor -o jsonpath='{.status.conditions[0].message}{"\n"}'
  hack/testbed tikv start
  recovers prototype/survivor universe/quickstart
  is "what was there before" 41 "$(send survivor count)"
  is "what was applied meanwhile" 2 "$(send survivor more)"

  say "NATS is killed: universe and prototype say so, and recover by themselves"
  hack/testbed kill nats-server
  kubectl patch prototype survivor --type=json --patch '[{"op": "add", "path": "/spec/slots/-", "value": {"name": "most", "value": 3}}]'
  soon because prototype/survivor 'Unreachable|UniverseNotReady'
  soon because universe/quickstart 'Starting|PodsFailing|BusUnreachable'
  hack/testbed start nats-server
  recovers universe/quickstart prototype/survivor
  is "what was there before" 41 "$(send survivor count)"
  is "what was applied meanwhile" 3 "$(send survivor most)"

  say "the API server is killed: messages go on, and the operator comes back"
  hack/testbed kill kube-apiserver
  is "an answer without an API server" 41 "$(send survivor count)"
  hack/testbed start kube-apiserver
  prototype after quickstart '  slots: [{ name: count, value: 5 }]' | kubectl apply -f -
  recovers prototype/after
  is "an answer" 5 "$(send after count)"

  say "a namespace goes with all that is in it, and comes back under its name"
  local round
  for round in 1 2; do
    kubectl create namespace short
    {
      printf 'apiVersion: batos.dev/v1alpha1\nkind: Universe\nmetadata: { name: short }\nspec: {}\n---\n'
      prototype brief short '  slots: [{ name: count, value: 1 }]'
      printf -- '---\napiVersion: batos.dev/v1alpha1\nkind: Codex\nmetadata: { name: laws }\nspec: { universe: short, principles: [be brief] }\n---\n'
      sed 's|image: .*|image: localhost/fake-vllm:test|' manifests/facets/facets.yaml
    } | kubectl apply -n short -f -
    kubectl wait -n short --for=condition=Ready --timeout=120s universe/short prototype/brief codex/laws modelpool/small facet/ledger
    is "a count of round $round" "$round" "$(send brief count --universe short)"
    send brief count: 2 --universe short
    kubectl delete namespace short --timeout=120s
  done

  say "what is deleted and made again at once is the new one"
  kubectl delete prototype survivor --wait=false
  kubectl wait --for=delete prototype/survivor --timeout=60s
  prototype survivor quickstart '  slots: [{ name: count, value: 1 }, { name: fresh, value: 9 }]' | kubectl apply -f -
  ready prototype/survivor
  is "its new slot" 9 "$(send survivor fresh)"
  kubectl delete prototype survivor after
}
