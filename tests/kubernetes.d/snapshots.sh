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

# The server verifies signatures.
test_buckets() {
  say "images in a bucket"
  local bucket="endpoint: \"$BATOS_TESTBED_S3\", bucket: images, prefix: backups/batos" first wrong blob i
  kubectl create secret generic bucket --from-literal=accessKeyId=testbed --from-literal=secretAccessKey="$BATOS_TESTBED_S3_SECRET"
  kubectl create secret generic stranger --from-literal=accessKeyId=testbed --from-literal=secretAccessKey=guessed
  send ledger total: 51
  resource Snapshot far "{ universe: quickstart, s3: { $bucket, credentialsSecret: bucket } }" | kubectl apply -f -
  ready snapshot/far
  kubectl get snapshot far -o jsonpath='{.status.images[0]}{"\n"}'
  first=$(images far)
  [[ -s $BATOS_TESTBED_DIR/s3/images/backups/batos/$first ]] || die "no image in the bucket"
  send ledger total: 52
  resource Universe fetched '{ restoreFrom: { snapshot: far } }' | kubectl apply -f -
  resource Universe named "{ restoreFrom: { s3: { $bucket, credentialsSecret: bucket }, image: $first }, store: { tikv: { endpoints: [\"${BATOS_TIKV#tikv://}\"] } } }" | kubectl apply -f -
  ready universe/fetched universe/named
  is "a total from the bucket, in a file" 51 "$(total fetched)"
  is "a total from the bucket, on TiKV" 51 "$(total named)"

  say "a schedule keeps the last images there"
  resource Snapshot always "{ universe: quickstart, every: 4s, keep: 2, s3: { $bucket, credentialsSecret: bucket } }" | kubectl apply -f -
  soon has_images always 2
  first=$(images always)
  soon has_moved_on always "${first%% *}"
  kubectl patch snapshot always --type=merge --patch '{"spec": {"every": "1d"}}'
  objects() { find "$BATOS_TESTBED_DIR/s3/images/backups/batos/always" -name '*.image' | wc -l; }
  has_objects() { (($(objects) == $1)); }
  soon has_objects 2

  say "a large image goes in parts"
  # In a file: TiKV's answers have a limit of 4 MiB, which a page of so large rows breaks.
  prototype bulk fetched '  slots: [{ name: x, value: 0 }]' | kubectl apply -f -
  ready prototype/bulk
  blob=$(head -c 120000 /dev/zero | tr '\0' x)
  # What was overwritten is in the image too.
  for i in {1..150}; do send bulk x: "$i$blob" --universe fetched >/dev/null; done
  (
    export AWS_ENDPOINT_URL=$BATOS_TESTBED_S3 AWS_ACCESS_KEY_ID=testbed AWS_SECRET_ACCESS_KEY=$BATOS_TESTBED_S3_SECRET
    batos=$CARGO_TARGET_DIR/debug/batos
    "$batos" export s3://images/large.image --universe fetched --nats "$BATOS_TESTBED_NATS"
    (($(stat -c %s "$BATOS_TESTBED_DIR/s3/images/large.image") > 16 << 20))
    "$batos" import s3://images/large.image --store "redb://$work/large.redb"
    "$batos" check --universe fetched --store "redb://$work/large.redb"
    if AWS_SECRET_ACCESS_KEY=guessed "$batos" import s3://images/large.image --store "redb://$work/none.redb" 2>"$work/refused"; then
      die "a wrong key was good"
    fi
  )
  grep -F SignatureDoesNotMatch "$work/refused"

  say "what is wrong with a bucket is said, and no key is told"
  resource Snapshot foreign "{ universe: quickstart, s3: { $bucket, credentialsSecret: stranger } }" | kubectl apply -f -
  says snapshot/foreign ExportFailed
  kubectl get snapshot foreign -o jsonpath='{.status.conditions[0].message}{"\n"}' | grep -F SignatureDoesNotMatch
  for wrong in "{ universe: quickstart }" "{ universe: quickstart, claim: images, s3: { $bucket, credentialsSecret: bucket } }"; do
    if resource Snapshot wrong "$wrong" | kubectl apply -f - 2>"$work/refused"; then die "a snapshot of $wrong was accepted"; fi
    grep 'give one of claim and s3' "$work/refused"
  done
  {
    kubectl get universes,snapshots,jobs,pods,configmaps,events -o yaml
    kubectl get pods -o name | xargs -n 1 kubectl logs --all-containers
  } >"$work/told" 2>&1
  if grep -e "$BATOS_TESTBED_S3_SECRET" -e X-Amz-Signature "$work/told"; then die "a key was told"; fi
  kubectl delete universe fetched named
  kubectl delete snapshot --all
}
