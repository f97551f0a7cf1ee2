# Two operators: one leads. Sourced by tests/kubernetes.sh.

lease() { kubectl get lease batos-operator -o jsonpath="{$1}"; }
holder() { lease .spec.holderIdentity; }
# A holder is called after its pod, and a number that no other process has.
leader() { local name; name=$(holder); echo "${name%_*}"; }
term() { lease '.metadata.annotations.batos\.dev/term'; }
another_than() { [[ -n $(holder) && $(holder) != "$1" ]]; }
restarts() { kubectl get pod "$1" -o jsonpath='{.status.containerStatuses[0].restartCount}'; }
has_restarted() { (($(restarts "$1") > $2)); }
metric() { kubectl get --raw "/api/v1/namespaces/default/pods/$1:8081/proxy/metrics" | grep "^$2" || true; }
# All calls of a pod's operator that write, but those for the Lease.
writes() { metric "$1" batos_api_calls_total | grep -E 'verb="(apply|create|delete|patch)"' | awk '{sum += $2} END {print sum + 0}'; }

# process POD prints the pid of a pod's operator on this machine.
process() {
  local pid
  for pid in $(pgrep -x batos); do
    ! tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -qx "POD_NAME=$1" || { echo "$pid"; return; }
  done
  return 1
}

test_leader() {
  say "of two operators one leads, and says so"
  kubectl rollout status deployment/batos-operator --timeout=60s
  soon test -n "$(holder)"
  local old was pod pid count
  is "leaders" 1 "$(for pod in $(kubectl get pods -l app.kubernetes.io/component=operator -o jsonpath='{.items[*].metadata.name}'); do
    metric "$pod" 'batos_leader 1'; done | wc -l)"

  say "what is idle writes nothing but the Lease"
  was=$(lease .metadata.resourceVersion)
  renewed_often() { (($(lease .metadata.resourceVersion) > was)) && (($(date +%s) > since + 20)); }
  local begun
  begun=$(date +%s)
  # Universes that have just started count their objects, and what they say is news.
  news() { kubectl get universes -A -o jsonpath='{range .items[*]}{.metadata.resourceVersion}{"\n"}{end}'; }
  local news since
  until since=$(date +%s) news=$(news) count=$(writes "$(leader)"); soon renewed_often; [[ $news == "$(news)" ]]; do
    (($(date +%s) < begun + 100)) || die "universes say something new all the time"
    was=$(lease .metadata.resourceVersion)
  done
  is "writes while idle" "$count" "$(writes "$(leader)")"

  say "the leader is killed, the other takes over"
  old=$(holder) was=$(term)
  kubectl delete pod "$(leader)" --grace-period=0 --force
  prototype orphan quickstart '' | kubectl apply -f -
  soon another_than "$old"
  ready prototype/orphan
  (($(term) > was)) || die "the term did not grow: $was, $(term)"

  say "the leader is paused: the other takes over, and the old one changes nothing when it wakes"
  kubectl rollout status deployment/batos-operator --timeout=60s
  old=$(holder) pod=$(leader)
  pid=$(process "$pod") count=$(restarts "$pod")
  kill -STOP "$pid"
  soon another_than "$old"
  kubectl patch prototype orphan --type=merge --patch '{"spec": {"slots": [{"name": "age", "value": 7}]}}'
  kubectl wait prototype/orphan --timeout=60s --for=jsonpath='{.status.observedGeneration}'=2
  ready prototype/orphan
  was=$(versions)
  kill -CONT "$pid"
  soon has_restarted "$pod" "$count"
  kubectl logs "$pod" --previous | grep "leads no more"
  diff <(echo "$was") <(versions)
  is "a slot" 7 "$(send orphan age)"
}
