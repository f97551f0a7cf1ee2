# The kubectl plugin. Sourced by tests/kubernetes.sh.

test_kubectl() {
  say "kubectl batos"
  mkdir "$work/plugin"
  ln -s "$CARGO_TARGET_DIR/debug/batos" "$work/plugin/kubectl-batos"
  local PATH=$work/plugin:$PATH
  kubectl batos --help
  kubectl batos plan -f manifests/quickstart >"$work/planned"
  cat "$work/planned"
  grep -q '^Prototype account: would change$' "$work/planned" # it got a slot above
  { prototype brandnew quickstart '  parents: [account]'; echo ---; prototype elder quickstart '  slots: [{ name: age, value: 71 }]'; } >"$work/plan.yaml"
  kubectl batos plan -f "$work/plan.yaml" >"$work/planned"
  cat "$work/planned"
  grep -q '^Prototype brandnew: would be created$' "$work/planned"
  grep -qF 'spec.slots[0].value: 70 -> 71' "$work/planned"
  is "an elder that was only planned" 70 "$(send child age)"
  # A rule in CEL: the server alone knows it.
  printf 'apiVersion: batos.dev/v1alpha1\nkind: Prototype\nmetadata: { name: elder }\nspec: { universe: other }\n' >"$work/plan.yaml"
  kubectl batos plan -f "$work/plan.yaml" --offline
  if kubectl batos plan -f "$work/plan.yaml" 2>"$work/refused"; then die "a change of the universe was planned"; fi
  grep 'the universe cannot change' "$work/refused"

  kubectl batos tree quickstart | tee "$work/tree"
  grep -A1 '^  elder  Applied' "$work/tree" | grep '^    child  Applied'
  is "a message by way of the resource" 70 "$(kubectl batos send child age)"
  kubectl batos why account double | tee "$work/why"
  grep -q 'double' "$work/why"
  : >"$work/key"
  if kubectl batos approve nothing --key "$work/key" 2>"$work/refused"; then die "nothing was approved"; fi
  grep '"nothing" is no proposal' "$work/refused"
  if kubectl batos deny nothing 2>"$work/refused"; then die "nothing was denied"; fi
  grep '"nothing" is no Proposal in namespace' "$work/refused"
  kubectl batos logs quickstart --tail 5 | grep '^\[quickstart-uvm-'
}

# With logins: the password comes from the Secret, for whoever may read it.
test_kubectl_logins() {
  local PATH=$work/plugin:$PATH
  is "a message of the Architect's" 40 "$(kubectl batos send guarded-lamp watts --universe guarded)"
  kubectl batos why guarded-lamp watts --universe guarded 2>"$work/refused" || grep -v -i 'forbidden' "$work/refused"
  kubectl create serviceaccount guest
  kubectl create role guest --verb=get,list --resource=universes.batos.dev
  kubectl create rolebinding guest --role=guest --serviceaccount=default:guest
  kubectl config view --raw --minify --flatten >"$work/guest.kubeconfig"
  KUBECONFIG=$work/guest.kubeconfig kubectl config set-credentials guest --token="$(kubectl create token guest)"
  KUBECONFIG=$work/guest.kubeconfig kubectl config set-context --current --user=guest
  is "a guest's message" 40 "$(KUBECONFIG=$work/guest.kubeconfig kubectl batos send guarded-lamp watts --universe guarded)"
  if KUBECONFIG=$work/guest.kubeconfig kubectl batos why guarded-lamp watts --universe guarded 2>"$work/refused"; then
    die "a guest asked as the Architect"
  fi
  grep 'only the Architect' "$work/refused"
}
