# What is made waits for a person, who decides by a resource. Sourced by tests/kubernetes.sh.

court() { kubectl -n court "$@"; }
state_of() { court get "$1" -o jsonpath='{.status.state}'; }

# decide VERDICT APPROVER DIGEST AS prints the new decision's name.
decide() {
  printf 'apiVersion: batos.dev/v1alpha1\nkind: ProposalDecision\nmetadata: { generateName: by-hand- }\n%s\n' \
    "spec: { proposal: $proposal, digest: \"$3\", verdict: $1, approver: \"$2\" }" | court create -f - -o name --as "$4"
}

# forbids AS APPROVER TEXT
forbids() {
  if decide Approve "$2" "$digest" "$1" 2>"$work/refused"; then die "$1 decided as $2"; fi
  cat "$work/refused"
  grep -qF "$3" "$work/refused" || die "not said: $3"
}

# comes_to DECISION REASON: it was refused, and why
comes_to() {
  court wait "$1" --timeout=60s --for=jsonpath='{.status.state}'=Refused
  is "why $1 was refused" "$2" "$(court get "$1" -o jsonpath='{.status.conditions[?(@.type=="Ready")].reason}')"
}

test_proposals() {
  local PATH=$work/plugin:$PATH proposal digest key
  local alice=system:serviceaccount:court:alice operator=system:serviceaccount:default:batos-operator
  local policy=validatingadmissionpolicy/batos-decisions

  say "what is made waits for a person, and is to be seen"
  kubectl create namespace court
  sed -e 's/name: quickstart/name: court/' -e 's/^  mind:/&\n    autonomy: Ask/' manifests/quickstart/universe.yaml | court apply -f -
  sed 's/universe: quickstart/universe: court/' manifests/quickstart/account.yaml | court apply -f -
  court wait --for=condition=Ready --timeout=120s universe/court prototype/account
  send account deposit: 100 --universe court
  if send account withdraw: 30 --universe court 2>"$work/refused"; then die "nobody was asked"; fi
  grep 'waits for a person' "$work/refused"
  shown() { [[ -n $(court get proposals -l batos.dev/universe=court -o name) ]]; }
  soon shown
  proposal=$(court get proposals -o jsonpath='{.items[0].metadata.name}')
  court wait "proposal/$proposal" --timeout=60s --for=jsonpath='{.status.state}'=Pending
  court get proposals -o wide
  court get proposals --no-headers | grep -E "^$proposal +court +account +withdraw: +Pending"
  court get proposal "$proposal" -o jsonpath='{.spec.source}{"\n"}' | grep -F 'balance: balance - n'
  digest=$(court get proposal "$proposal" -o jsonpath='{.spec.digest}')
  if court patch proposal "$proposal" --type=merge --patch '{"spec": {"source": "withdraw: n = ( n )"}}' 2>"$work/refused"; then
    die "what is proposed was changed"
  fi
  grep 'cannot change' "$work/refused"

  say "whoever may not approve, or names another, is refused by the API server"
  court create serviceaccount alice
  court create rolebinding architects --clusterrole=batos-architect --serviceaccount=court:alice \
    --serviceaccount=default:batos-operator --serviceaccount=court:court-uvm
  court create role clerk --verb=get,list,watch,create --resource=proposaldecisions.batos.dev
  court create rolebinding clerks --role=clerk --user=bob
  forbids bob bob 'bob has not the verb approve on proposal'
  forbids bob "$alice" 'spec.approver has to be whoever creates the decision, bob'
  forbids "$alice" bob "spec.approver has to be whoever creates the decision, $alice"
  forbids "$operator" "$operator" 'an account of batos itself decides about nothing'
  forbids system:serviceaccount:court:court-uvm system:serviceaccount:court:court-uvm 'an account of batos itself'

  say "another source than the one that waits is refused by the operator"
  comes_to "$(decide Approve "$alice" "$(printf '0%.0s' {1..64})" "$alice")" OtherSource
  is "the proposal" Pending "$(state_of "proposal/$proposal")"

  say "the architect's decision is carried out, once"
  kubectl config view --raw --minify --flatten >"$work/alice.kubeconfig"
  KUBECONFIG=$work/alice.kubeconfig kubectl config set-credentials alice --token="$(court create token alice)"
  KUBECONFIG=$work/alice.kubeconfig kubectl config set-context --current --user=alice --namespace=court
  KUBECONFIG=$work/alice.kubeconfig kubectl batos approve "$proposal" --reason seen | tee "$work/told"
  grep -F Applied "$work/told"
  is "the made method's answer" 70 "$(send account withdraw: 30 --universe court | head -n 1)"
  court wait "proposal/$proposal" --timeout=60s --for=jsonpath='{.status.state}'=Applied
  kubectl batos why account withdraw: -n court --universe court | grep -F "$alice: seen"
  comes_to "$(decide Deny "$alice" "$digest" "$alice")" Refused
  court get proposaldecisions
  court get proposaldecisions -o jsonpath='{range .items[*]}{.status.conditions[0].message}{"\n"}{end}' | grep 'nothing is left to decide'
  is "the method stays" 40 "$(send account withdraw: 30 --universe court)"

  say "the key stands in its Secret alone"
  key=$(kubectl get secret batos-decisions -o jsonpath='{.data.approver\.key}')
  [[ ${#key} -gt 60 ]] || die "no key in the Secret"
  {
    kubectl get universes,proposals,proposaldecisions,pods,deployments,configmaps,events -A -o yaml
    kubectl get pods -o name | xargs -n 1 kubectl logs --all-containers
  } >"$work/told"
  if grep -F "$key" "$work/told"; then die "the key was told"; fi

  say "a Codex is law for the universe's workers"
  printf 'apiVersion: batos.dev/v1alpha1\nkind: Codex\nmetadata: { name: quiet }\n%s\n' \
    'spec: { universe: court, rules: [{ name: closed, objects: [account], forbidMaking: true }] }' | court apply -f -
  court wait codex/quiet --for=condition=Ready --timeout=60s
  lawful() { { send account transfer: 1 --universe court 2>&1 || true; } | grep -F 'quiet/closed'; }
  soon lawful
  court get codexes

  say "a law goes only when the architect says so"
  local made=$proposal of_made=$digest
  court delete codex/quiet
  amended() {
    proposal=$(court get proposals -o jsonpath='{.items[?(@.spec.amendment==true)].metadata.name}')
    [[ -n $proposal ]]
  }
  # A worker that does not start anew looks every half minute, and so does the operator.
  soon amended || soon amended
  court wait "proposal/$proposal" --timeout=60s --for=jsonpath='{.status.state}'=Pending
  court get proposal "$proposal" -o jsonpath='{.spec.risks[0]}{"\n"}' | grep -F 'the rule "quiet/closed" goes'
  soon lawful
  digest=$(court get proposal "$proposal" -o jsonpath='{.spec.digest}')
  court wait "$(decide Approve "$alice" "$digest" "$alice")" --timeout=60s --for=jsonpath='{.status.state}'=Done
  court wait "proposal/$proposal" --timeout=60s --for=jsonpath='{.status.state}'=Applied
  if lawful; then die "the law stayed"; fi
  proposal=$made digest=$of_made

  say "without the chart's own policy nobody decides, and what was decided then never counts"
  kubectl patch "$policy" --type=merge --patch '{"spec": {"failurePolicy": "Ignore"}}'
  comes_to "$(decide Deny "$alice" "$digest" "$alice")" PolicyAltered
  kubectl patch "$policy" --type=merge --patch '{"spec": {"failurePolicy": "Fail"}}'
  comes_to "$(decide Deny "$alice" "$digest" "$alice")" PolicyNewer
  kubectl delete validatingadmissionpolicybinding batos-decisions
  pretends() { decide Deny "$alice" "$digest" bob 2>/dev/null >"$work/pretended"; }
  soon pretends
  comes_to "$(cat "$work/pretended")" PolicyMissing
  court get proposaldecisions
}
