# The charts, rendered and taken by the API server. Sourced by tests/kubernetes.sh.

# has TEXT / has_not TEXT in what was rendered last
has() { grep -qF -- "$1" "$work/rendered" || die "not rendered: $1"; }
has_not() { ! grep -qF -- "$1" "$work/rendered" || die "rendered: $1"; }
render() { helm template batos charts/batos "$@" >"$work/rendered"; }

test_charts() {
  say "charts: rendered, and taken by the API server"
  helm lint --quiet charts/batos-crds charts/batos
  render
  has 'kind: CustomResourceDefinition'
  has 'helm.sh/resource-policy: keep'
  has 'kind: PodDisruptionBudget'
  has 'kind: NetworkPolicy'
  has 'kind: ClusterRole'
  has 'resourceNames:'
  has 'readOnlyRootFilesystem: true'
  has_not 'kind: ServiceMonitor'
  has_not '--no-network-policies'
  has 'kind: ValidatingAdmissionPolicy'
  has 'kind: ValidatingAdmissionPolicyBinding'
  has "request.userInfo.username != 'system:serviceaccount:default:batos-operator'"
  has '--decisions=batos-decisions'
  has 'verbs: [get, list, watch, approve]'
  kubectl apply --dry-run=server -f "$work/rendered" >/dev/null
  render --set watchNamespace=default --set rbac.aggregate=false --set decisions.enabled=false
  has_not 'kind: ClusterRole'
  has_not 'kind: ValidatingAdmissionPolicy'
  has_not '--decisions'
  kubectl apply --dry-run=server -f "$work/rendered" >/dev/null
  render --api-versions monitoring.coreos.com/v1 --set metrics.dashboard=true
  has 'kind: ServiceMonitor'
  has 'kind: PrometheusRule'
  has 'grafana_dashboard'
  render --set crds.enabled=false --set replicaCount=1 --set networkPolicy.operator=false --set networkPolicy.workers=false
  has_not 'kind: CustomResourceDefinition'
  has_not 'kind: PodDisruptionBudget'
  has_not 'kind: NetworkPolicy'
  has '--no-network-policies'
  local wrong
  for wrong in nats.url=here replicaCount=many leaderElection.leaseSeconds=1 surprise=1; do
    if helm template charts/batos --set "$wrong" >/dev/null 2>"$work/refused"; then die "the chart took $wrong"; fi
    tail -n 1 "$work/refused"
  done
}
