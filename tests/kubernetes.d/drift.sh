# What the universe changes itself, and rolling its workers. Sourced by tests/kubernetes.sh.

slot_of() { kubectl get prototype "$1" -o jsonpath="{.status.slots[?(@.name=='$2')].$3}"; }
slot_is() { [[ $(slot_of "$1" "$2" "$3") == "$4" ]]; }
architect() { "$CARGO_TARGET_DIR/debug/batos" eval "$@" --nats "$BATOS_TESTBED_NATS"; }
drift_of() { [[ $(kubectl get prototype "$1" -o jsonpath='{.status.drift}') == "$2" ]]; }
answers() { [[ $(send "${@:2}" 2>/dev/null) == "$1" ]]; }

test_drift() {
  say "drift is reported, adopted or set back"
  prototype clock quickstart '  slots: [{ name: hours, value: 0 }, { name: "add:", method: "add: n = ( hours + n )" }]' | kubectl apply -f -
  ready prototype/clock
  is "a sum" 1 "$(send clock add: 1)"
  architect 'clock parent setSlot: #add: value: [:n | 99]'
  soon drift_of clock 1
  slot_is clock add: owner Live
  slot_is clock add: drift true
  slot_is clock hours owner Manifest
  kubectl get prototype clock
  kubectl get events --field-selector involvedObject.name=clock,reason=Drifted | grep clock
  is "the universe's own" 99 "$(send clock add: 1)"
  kubectl patch prototype clock --type=merge --patch '{"spec": {"drift": "Adopt"}}'
  soon slot_is clock add: drift ''
  is "the universe's own, adopted" 99 "$(send clock add: 1)"
  kubectl patch prototype clock --type=merge --patch '{"spec": {"drift": "Enforce"}}'
  soon answers 1 clock add: 1
  architect 'clock parent setSlot: #add: value: [:n | 99]'
  soon answers 1 clock add: 1
  send clock hours: 5
  soon slot_is clock add: owner Manifest
  is "data is no drift" 5 "$(send clock hours)"

  say "a prototype that fits into no record is refused at once"
  if {
    printf 'apiVersion: batos.dev/v1alpha1\nkind: Prototype\nmetadata: { name: huge }\nspec:\n  universe: quickstart\n  slots:\n'
    local i
    for i in {1..13}; do printf '  - { name: m%s, method: "m%s = ( %s )" }\n' "$i" "$i" "'$(head -c 16000 /dev/zero | tr '\0' x)'"; done
  } | kubectl apply -f - 2>"$work/refused"; then die "a huge prototype was accepted"; fi
  tail -c 300 "$work/refused"
}

test_roll() {
  say "workers roll while messages come: each is carried out once"
  prototype tally quickstart '  slots: [{ name: count, value: 0 }, { name: add, method: "add = ( count: count + 1. ^count )" }]' | kubectl apply -f -
  ready prototype/tally
  kubectl patch universe quickstart --type=merge --patch '{"spec": {"workers": {"replicas": 2, "resources": {"requests": {"cpu": "20m", "memory": "48Mi"}}}}}'
  ready universe/quickstart
  kubectl get deployments,poddisruptionbudgets,networkpolicies,serviceaccounts -l batos.dev/universe=quickstart
  kubectl scale universe quickstart --replicas=1
  ready universe/quickstart
  kubectl rollout restart deployment/quickstart-uvm
  local sent=0
  until kubectl rollout status deployment/quickstart-uvm --watch=false | grep -q "successfully rolled out"; do
    send tally add >/dev/null || die "a message was lost in the roll, after $sent"
    sent=$((sent + 1))
  done
  ready universe/quickstart
  ((sent > 0)) || die "the roll was over before a message came"
  is "messages carried out" "$sent" "$(send tally count)"
}

has_gone() { ! kubectl get prototype "$1" >/dev/null 2>&1; }
is_unknown() { { send "$1" count 2>&1 || true; } | grep -q "no object"; }

test_deletion() {
  say "a prototype's object stays, or goes with it"
  local n='slots: [{ name: count, value: 7 }]'
  prototype kept quickstart "  $n" | kubectl apply -f -
  prototype root quickstart "  deletionPolicy: Delete
  $n" | kubectl apply -f -
  prototype leaf quickstart '  deletionPolicy: Delete
  parents: [root]' | kubectl apply -f -
  ready prototype/kept prototype/root prototype/leaf
  kubectl delete prototype kept --timeout=30s
  is "an object whose resource is gone" 7 "$(send kept count)"

  say "not while another delegates to it, and then by itself"
  kubectl delete prototype root --wait=false
  says prototype/root InUse
  kubectl get prototype root -o jsonpath='{.status.conditions[?(@.type=="Ready")].message}{"\n"}' | grep 'traits leaf'
  kubectl get events --field-selector involvedObject.name=root,reason=InUse | grep root
  is "what it answers meanwhile" 7 "$(send leaf count)"
  kubectl delete prototype leaf --timeout=60s
  soon has_gone root
  soon is_unknown root
  prototype root quickstart '  slots: [{ name: count, value: 8 }]' | kubectl apply -f -
  ready prototype/root
  is "another of its name" 8 "$(send root count)"

  say "a universe that is gone, or is given up, holds nothing up"
  printf 'apiVersion: batos.dev/v1alpha1\nkind: Universe\nmetadata: { name: brief }\nspec: { workers: { replicas: 0 } }\n' | kubectl apply -f -
  local name
  for name in waits given; do
    prototype "$name" brief '  deletionPolicy: Delete' | kubectl apply -f -
    says "prototype/$name" UniverseNotReady
    kubectl delete prototype "$name" --wait=false
  done
  kubectl patch prototype given --type=merge --patch '{"spec": {"deletionPolicy": "Retain"}}'
  soon has_gone given
  kubectl get prototype waits
  kubectl delete universe brief
  soon has_gone waits
}
