# Images of universes on a volume, and universes that begin with one. Sourced by tests/kubernetes.sh.

resource() { printf 'apiVersion: batos.dev/v1alpha1\nkind: %s\nmetadata: { name: %s }\nspec: %s\n' "$1" "$2" "$3"; }
images() { kubectl get snapshot "$1" -o jsonpath='{.status.images[*].file}'; }
total() { send ledger total --universe "$1"; }
has_images() { (($(images "$1" | wc -w) == $2)); }
has_moved_on() { [[ $(images "$1") != *"$2"* ]]; }

test_snapshots() {
  local tikv="store: { tikv: { endpoints: [\"${BATOS_TIKV#tikv://}\"] } }"
  say "a snapshot of a living universe"
  kubectl apply -f - <<'YAML'
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: images }
spec: { accessModes: [ReadWriteOnce], resources: { requests: { storage: 1Gi } } }
YAML
  resource Universe early "{ restoreFrom: { snapshot: once }, $tikv }" | kubectl apply -f -
  says universe/early SnapshotMissing
  prototype ledger quickstart '  slots: [{ name: total, value: 0 }]' | kubectl apply -f -
  ready prototype/ledger
  send ledger total: 41
  resource Snapshot lost '{ universe: nowhere, claim: images }' | kubectl apply -f -
  says snapshot/lost UniverseMissing
  resource Snapshot once '{ universe: quickstart, claim: images }' | kubectl apply -f -
  ready snapshot/once
  kubectl get snapshots -o wide
  kubectl get snapshot once -o jsonpath='{.status.images[0]}{"\n"}'
  kubectl get events --field-selector involvedObject.name=once,reason=Taken | grep once
  send ledger total: 42

  say "new universes begin with it, on TiKV and in a file"
  resource Universe copy '{ restoreFrom: { snapshot: once } }' | kubectl apply -f -
  ready universe/early universe/copy
  kubectl get universes -o wide
  is "a restored total on TiKV" 41 "$(total early)"
  is "a restored total in a file" 41 "$(total copy)"
  send ledger total: 7 --universe copy
  kubectl delete pod copy-uvm-0
  total_is() { [[ $(total "$1" 2>/dev/null) == "$2" ]]; }
  soon total_is copy 7
  is "the one that was copied" 42 "$(total quickstart)"

  say "nothing is restored over anything"
  if kubectl patch universe quickstart --type=merge --patch '{"spec": {"restoreFrom": {"snapshot": "once"}}}' 2>"$work/refused"; then
    die "a universe that lives was to be restored"
  fi
  cat "$work/refused"
  send ledger total: 8 --universe early
  kubectl delete universe early copy
  kubectl wait --for=delete --timeout=60s deployment/early-uvm statefulset/copy-uvm job/early-restore job/copy-restore
  resource Universe early "{ restoreFrom: { snapshot: once }, $tikv }" | kubectl apply -f -
  resource Universe copy '{ restoreFrom: { snapshot: once } }' | kubectl apply -f -
  says universe/early RestoreFailed
  says universe/copy RestoreFailed
  kubectl get universe early copy -o jsonpath='{range .items[*]}{.status.conditions[0].message}{"\n"}{end}' | tee "$work/refused"
  is "refusals" 2 "$(grep -c 'is there already' "$work/refused")"
  is "workers" "" "$(kubectl get deployments,statefulsets -o name | grep -e early-uvm -e copy-uvm || true)"
  kubectl patch universe early --type=json --patch '[{"op": "remove", "path": "/spec/restoreFrom"}]'
  kubectl patch universe copy --type=json --patch '[{"op": "remove", "path": "/spec/restoreFrom"}]'
  ready universe/early universe/copy
  is "what was there on TiKV" 8 "$(total early)"
  is "what was there in the file" 7 "$(total copy)"

  say "a schedule keeps the last images, and a bus with logins is no hindrance"
  local address first
  address=$(kubectl get service nats -o jsonpath='{.spec.clusterIP}'):4222
  resource Universe vault "{ bus: { url: \"nats://$address\", credentialsSecret: batos-nats } }" | kubectl apply -f -
  ready universe/vault
  resource Snapshot often '{ universe: vault, claim: images, every: 4s, keep: 2 }' | kubectl apply -f -
  soon has_images often 2
  first=$(images often)
  soon has_moved_on often "${first%% *}"
  ready snapshot/often
  kubectl get snapshot often
  kubectl patch snapshot often --type=merge --patch '{"spec": {"every": "1d"}}'
  files() { find "$BATOS_TESTBED_DIR/volumes" -path '*/often/*' -type f | wc -l; }
  has_files() { (($(files) == $1)); }
  soon has_files 2
  kubectl delete universe early copy vault
  kubectl delete snapshot --all
}
