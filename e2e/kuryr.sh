#!/usr/bin/env bash
# Kuryr on the stack that openstack.sh and kubernetes.sh have started: the controller and the daemon as processes of this machine,
# from the executables that `make build` made, each with the rights of its own service account.
#
#   e2e/kuryr.sh up|down|status                    up and down may be repeated; down removes what Kuryr made in the cloud
#   e2e/kuryr.sh deploy                            the part of up before its processes: who wants to start them otherwise
#   e2e/kuryr.sh fill N                            waits until the node has N spare ports (with KURYR_E2E_POOLS=true)
#   e2e/kuryr.sh start|stop|restart SERVICE        controller or daemon
#   e2e/kuryr.sh kuryr ARGUMENT...                 the kuryr executable as an administrator: setup, status, audit, ...
set -euo pipefail
# shellcheck source=e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

KURYR=$STATE/kuryr
# The same folder by a path that is short enough for a socket, whatever the checkout's is.
SHORT=$RUN/kuryr
KURYR_BIN=${KURYR_BIN:-$ROOT/target/release/kuryr}
KURYR_CNI=${KURYR_CNI:-$(find "$ROOT/target/cni" -path '*/cni/kuryr-cni' -type f 2>/dev/null | head -n 1)}
CONTROLLER_PORT=${KURYR_E2E_CONTROLLER_PORT:-9650}
DAEMON_PORT=${KURYR_E2E_DAEMON_PORT:-9651}
CLOUD=${KURYR_E2E_CLOUD:-kuryr-appcred}
read -ra POD_CIDRS <<<"${KURYR_E2E_POD_CIDR:-10.128.0.0/20}"
SERVICES=(controller daemon)

kuryr() { "$KURYR_BIN" "$@" --config "$KURYR/kuryr.toml"; }

configure() {
  mkdir -p "$KURYR"
  ln -sfn "$KURYR" "$SHORT"
  cat >"$KURYR/kuryr.toml" <<C
[openstack]
cloud = "$CLOUD"

[controller]
listen = "127.0.0.1:$CONTROLLER_PORT"
# Short, so that scenarios need not wait long for a standby, or until the pods of a deleted node are taken for gone.
lease_duration = "3s"
node_cooldown = "3s"

# What becomes of single ports is told without pools.
[pools]
enabled = ${KURYR_E2E_POOLS:-false}

[daemon]
listen = "127.0.0.1:$DAEMON_PORT"
socket = "$SHORT/$NODE/cni.sock"
state_dir = "$SHORT/$NODE/state"
ovsdb_socket = "$OVS_RUNDIR/db.sock"
C
}

# account NAME [OPTION...]: a kubeconfig with a token of the service account, for a process outside of the cluster.
account() {
  local token
  # The variable is for a kubectl older than 1.33, which else binds tokens to no node.
  token=$(KUBECTL_NODE_BOUND_TOKENS=true kubectl --namespace kube-system create token "kuryr-$1" --duration=24h "${@:2}")
  (
    umask 077
    kubectl config view --raw --minify -o json |
      jq --rawfile token <(printf '%s' "$token") '.users[0].user = {token: $token}' >"$KURYR/$1.kubeconfig"
  )
}

deploy() {
  kubectl get --raw /readyz >/dev/null || die "Kubernetes does not answer: e2e/kubernetes.sh up"
  answers "http://127.0.0.1:${KURYR_E2E_NEUTRON_PORT:-9696}/" || die "Neutron does not answer: e2e/openstack.sh up"
  {
    "$KURYR_BIN" crds | kubectl apply --filename -
    # Processes of this machine take the place of the pods: of those the API server only says whether it would take them.
    kubectl apply --dry-run=server --kustomize "$ROOT/deploy"
    kubectl apply --filename "$ROOT/deploy/rbac.yaml" --filename "$ROOT/deploy/admission.yaml"
  } >>"$LOGS/deploy.log"
  account controller
  # As the token of a daemon's pod is.
  account daemon --bound-object-kind=Node "--bound-object-name=$NODE"
  run_logged setup kuryr setup "${POD_CIDRS[@]/#/--pod-cidr=}" --service-cidr "$SERVICE_CIDR" --external-network public
  route_services
}

# Node ports lead to cluster IPs, and the node's way to those is the router's.
route_services() {
  local cluster router gateway
  cluster=$(kubectl get namespace kube-system --output 'jsonpath={.metadata.uid}')
  # By its tag: an earlier cluster may have left one of the same name.
  router=$(openstack --os-cloud kuryr router list --tags "kuryr:$cluster" --format json | jq -r '.[0].ID')
  gateway=$(openstack --os-cloud kuryr router show "$router" --format json | jq -r '.external_gateway_info.external_fixed_ips[0].ip_address')
  ip route replace "$SERVICE_CIDR" via "$gateway" dev br-ex
}

start_controller() {
  free_port controller "$CONTROLLER_PORT" KURYR_E2E_CONTROLLER_PORT
  KUBECONFIG=$KURYR/controller.kubeconfig start controller "$KURYR_BIN" controller --config "$KURYR/kuryr.toml"
  await controller 60 "become ready" ready "$CONTROLLER_PORT"
}

start_daemon() {
  free_port daemon "$DAEMON_PORT" KURYR_E2E_DAEMON_PORT
  # Of the cloud it is told nothing, not even where its credentials are.
  KUBECONFIG=$KURYR/daemon.kubeconfig KURYR_NODE=$NODE \
    start daemon env --unset=OS_CLIENT_CONFIG_FILE "$KURYR_BIN" daemon --config "$KURYR/kuryr.toml"
  await daemon 60 "become ready" ready "$DAEMON_PORT"
}

ready() { curl --fail --silent --noproxy '*' --max-time 2 --output /dev/null "http://127.0.0.1:$1/readyz"; }

# install_cni: the executable first, the configuration last: once containerd sees it, it begins to call.
install_cni() {
  install -m 755 "$KURYR_CNI" "$STATE/kubernetes/cni-bin/kuryr-cni"
  jq --arg socket "$SHORT/$NODE/cni.sock" '.plugins[0].kuryrSocket = $socket' "$ROOT/deploy/10-kuryr.conflist" >"$KURYR/kuryr.conflist"
  "$E2E/kubernetes.sh" cni "$KURYR/kuryr.conflist"
}

prepared() {
  prepare
  locked kuryr
  if [ ! -x "$KURYR_BIN" ] || [ ! -x "$KURYR_CNI" ]; then die "the executables are not built: make build"; fi
  any_alive_of "${SERVICES[@]}" || fresh_logs "${SERVICES[@]}" deploy setup
  say "Kuryr"
  configure
  timed "CRDs, RBAC, setup" deploy
  timed "CNI" install_cni
}

up() {
  prepared
  timed "controller" ensure controller
  timed "daemon" ensure daemon
  say "Kuryr is up: e2e/kuryr.sh kuryr status"
}

# without_pods: while Kuryr lives, its pods give back what they have.
without_pods() {
  run_logged teardown kubectl delete pods --all --all-namespaces --grace-period=1 --timeout=60s
  run_logged teardown kubectl wait kuryrports --all --all-namespaces --for=delete --timeout=60s
}

pools() { grep -A1 '^\[pools\]' "$KURYR/kuryr.toml" | grep -q 'enabled = true'; }

# pools_are FILTER: whether it is so, in the report of `kuryr pools`.
pools_are() { kuryr pools --output json | jq --exit-status "$1"; }

fill() {
  # Pools open when the ports that there are have been listed.
  await controller 30 "opened the node's pool" kuryr pools fill "$NODE" "$1"
  await controller 120 "filled its pool" pools_are "any(.pools[]; .ready >= $1)"
}

# without_spares: what nobody has is in the way of the teardown.
without_spares() {
  run_logged pools kuryr pools drain "$NODE"
  await controller 60 "emptied its pools" pools_are '.held == 0 and .leaving == 0'
}

# down: every part is tried, whatever became of those before it.
down() {
  local failed=0 cluster=no
  ! kubectl get --raw /readyz >/dev/null 2>&1 || cluster=yes
  if [ "$cluster" = yes ] && alive controller && alive daemon; then (without_pods) || failed=1; fi
  if alive controller && pools; then (without_spares) || failed=1; fi
  # What they have in the cloud is on Kuryr's router.
  "$E2E/machines.sh" down || failed=1
  [ ! -e "$STATE/kubernetes/cni" ] || "$E2E/kubernetes.sh" cni none || failed=1
  stop daemon
  stop controller
  if [ "$cluster" = yes ] && [ -x "$KURYR_BIN" ] && [ -s "$KURYR/kuryr.toml" ]; then
    (run_logged setup kuryr setup --teardown) || failed=1
  fi
  rm -rf "$KURYR"
  rm -f "$SHORT" "$STATE/kubernetes/cni-bin/kuryr-cni"
  return "$failed"
}

verb=${1:-help}
case $verb in
  up) up ;;
  deploy) prepared ;;
  down)
    prepare
    locked kuryr
    timed "Kuryr down" down
    ;;
  status)
    say "Kuryr"
    show_status "${SERVICES[@]}"
    ;;
  start | stop | restart) on_service "$@" ;;
  fill) timed "pool filled" fill "$2" ;;
  kuryr)
    shift
    kuryr "$@"
    ;;
  *)
    usage
    [ "$verb" = help ]
    ;;
esac
