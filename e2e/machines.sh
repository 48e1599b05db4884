#!/usr/bin/env bash
# Nodes that are virtual machines: guests in software emulation whose taps are the parent ports of trunks in the integration bridge,
# with a Kuryr daemon, kuryr-cni and a kubelet in them. The stack must be up, and Kuryr deployed.
#
#   e2e/machines.sh up MACHINE...             starts those that do not run, waits until they are ready nodes, prints JSON about them.
#                                             MACHINE is NAME; pods of NAME=macvlan or NAME=ipvlan share its port instead of a trunk
#   e2e/machines.sh ask NAME SECONDS COMMAND  runs a shell command in one
#   e2e/machines.sh reboot NAME               switches it off and on; it forgets all that it had written. Waits until it answers
#   e2e/machines.sh burn NAME                 it fails for good: switched off, and its host forgets it. Its Node, port and trunk stay
#   e2e/machines.sh down|status               down takes all of them away, with all that was made for them in cloud and cluster
#
# A machine has two interfaces. One is its port's, and has nothing but the cloud. By the other one, of qemu's user-mode network, it
# reaches the API server: as in most clouds, management has a network of its own, and a test that breaks the one does not stop the other.
# No pod comes to such a node that does not tolerate its taint.
set -euo pipefail
# shellcheck source=e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# shellcheck source=e2e/guest/image.sh
. "$E2E/guest/image.sh"
# The image is in memory, and for a moment twice; executables of a debug build are large.
GUEST_MEMORY=${KURYR_GUEST_MEMORY:-768}

MACHINES=$STATE/machines
# Sockets and taps have short names.
SHORT=$RUN/machines
KURYR_BIN=${KURYR_BIN:-$ROOT/target/release/kuryr}
KURYR_TESTBED=${KURYR_TESTBED:-$KURYR_BIN-testbed}
MACHINE_CIDR=${KURYR_E2E_MACHINE_CIDR:-10.140.0.0/24}
CLOUD=${KURYR_E2E_CLOUD:-kuryr}
TAINT=kuryr.test/machine
# Of qemu's user-mode network (TEST-NET-1); it is the same in every machine, each has its own.
MANAGEMENT_NETWORK=192.0.2.0/24 MANAGEMENT_ADDRESS=192.0.2.15/24 MANAGEMENT_GATEWAY=192.0.2.2 MANAGEMENT_MAC=52:54:00:00:00:02

machines() { # the names of those that were started
  local record
  for record in "$PIDS"/machine-*; do [ ! -e "$record" ] || printf '%s\n' "${record##*/machine-}"; done
}

in_cloud() { /usr/bin/python3 "$E2E/guest/cloud.py" --cloud "$CLOUD" "$@"; }

# make_image: what all machines have, if it is not newer than what is put into it.
make_image() {
  local image=$MACHINES/image stripped=$MACHINES/stripped file cni
  cni=${KURYR_CNI:-$(find "$ROOT/target/cni" -path '*/cni/kuryr-cni' -type f | head -n 1)}
  if [ -e "$image" ]; then
    for file in "$KURYR_BIN" "$KURYR_TESTBED" "$cni" "$GUEST"/*; do [ "$image" -nt "$file" ] || break; done
    [ ! "$image" -nt "$file" ] || return 0
  fi
  guest_kernel
  mkdir -p "$stripped"
  strip -o "$stripped/kuryr" "$KURYR_BIN" &
  local first=$!
  strip -o "$stripped/kuryr-testbed" "$KURYR_TESTBED"
  join "$first"
  guest_image "$image" "$stripped/kuryr=/bin/kuryr" "$stripped/kuryr-testbed=/bin/kuryr-testbed" "$cni=/opt/cni/bin/kuryr-cni" \
    "$(command -v nft)=/bin/nft" "$ROOT/deploy/10-kuryr.conflist=/etc/cni/net.d/10-kuryr.conflist" "$GUEST/machine=/etc/start"
  rm -rf "$stripped"
}

# registered NAME KIND: its Node, which its daemon's token is for. Its address, by which Kuryr finds the port, comes with the kubelet.
registered() {
  jq -n --arg name "$1" --arg kind "$2" --arg taint "$TAINT" '{apiVersion: "v1", kind: "Node",
    metadata: {name: $name, annotations: {"kuryr.openstack.org/nested": $kind}}, spec: {taints: [{key: $taint, effect: "NoSchedule"}]}}' |
    kubectl apply --filename - >>"$LOGS/machines.log"
}

kind_of() { # MACHINE: how its pods are plugged
  case $1 in
    *=*) printf '%s' "${1#*=}" ;;
    *) printf vlan ;;
  esac
}

# facts_of NAME: what the cloud has said of it, as JSON.
facts_of() { jq --arg name "$1" '.[] | select(.name == $name)' "$MACHINES/facts.json"; }

# own_files NAME FACTS: an archive with what only this machine has; the kernel unpacks it after the image.
own_files() {
  local name=$1 facts=$2 root token
  root=$(mktemp --directory)
  mkdir -p "$root"/etc/{kuryr,kubernetes}
  {
    jq -r '@sh "NAME=\(.name) MAC=\(.mac) ADDRESS=\(.address) PREFIX=\(.prefix) GATEWAY=\(.gateway) MTU=\(.mtu)"' <<<"$facts"
    printf '%s=%s\n' MANAGEMENT_MAC "$MANAGEMENT_MAC" MANAGEMENT_ADDRESS "$MANAGEMENT_ADDRESS" MANAGEMENT_GATEWAY "$MANAGEMENT_GATEWAY" \
      API_ADDRESS "$NODE_IP"
  } >"$root/etc/machine"
  # The daemon's rights are those of its own node's daemon, the kubelet's those of an administrator.
  token=$(KUBECTL_NODE_BOUND_TOKENS=true kubectl --namespace kube-system create token kuryr-daemon --duration=24h \
    --bound-object-kind=Node --bound-object-name="$name")
  kubectl config view --raw --minify --flatten -o json >"$root/etc/kubernetes/kubeconfig"
  jq --rawfile token <(printf '%s' "$token") '.users[0].user = {token: $token}' "$root/etc/kubernetes/kubeconfig" >"$root/etc/kuryr/kubeconfig"
  : >"$root/etc/kuryr/kuryr.toml" # all defaults
  (
    umask 077
    cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null >"$MACHINES/$name.files"
  )
  rm -rf "$root"
}

tap_of() { printf 'tap%.11s' "$(jq -r .port <<<"$1")"; } # FACTS: as nova names it

# plug FACTS: what nova and its host do.
plug() {
  local facts=$1 tap
  tap=$(tap_of "$facts")
  : >"$MACHINES/taps/$tap"
  [ -e "/sys/class/net/$tap" ] || ip tuntap add dev "$tap" mode tap
  echo 1 >"/proc/sys/net/ipv6/conf/$tap/disable_ipv6"
  ip link set "$tap" up
  ovs-vsctl --timeout=10 --may-exist add-port br-int "$tap" -- set Interface "$tap" "external-ids:iface-id=$(jq -r .port <<<"$facts")" \
    "external-ids:attached-mac=\"$(jq -r .mac <<<"$facts")\"" external-ids:iface-status=active
}

# boot FACTS: without offloads (vnet_hdr): the userspace datapath computes no checksums for others.
boot() {
  local facts=$1 name tap
  name=$(jq -r .name <<<"$facts")
  tap=$(tap_of "$facts")
  cat "$MACHINES/image" "$MACHINES/$name.files" >"$MACHINES/$name.image"
  guest_qemu "$MACHINES/$name.image" "$SHORT/$name" "$LOGS/machine-$name.console.log"
  start "machine-$name" "${QEMU[@]}" -name "$name" \
    -netdev "tap,id=cloud,ifname=$tap,script=no,downscript=no,vnet_hdr=off" \
    -device "virtio-net-pci,netdev=cloud,mac=$(jq -r .mac <<<"$facts"),romfile=" \
    -netdev "user,id=management,net=$MANAGEMENT_NETWORK,host=$MANAGEMENT_GATEWAY" \
    -device "virtio-net-pci,netdev=management,mac=$MANAGEMENT_MAC,romfile="
}

up() {
  local machine name facts image all
  [ $# -gt 0 ] || die "which machines?"
  prepare
  locked machines
  mkdir -p "$MACHINES/taps" "$SHORT"
  guest_packages >>"$LOGS/machines.log"
  make_image &
  image=$!
  # Also those that are there already: one that is started later does not take their place.
  mapfile -t all < <(printf '%s\n' "$@" && comm -13 <(printf '%s\n' "${@%%=*}" | sort) <(machines | sort))
  in_cloud up --host "$NODE" --router kuryr-pods --cidr "$MACHINE_CIDR" --pods kuryr-pods "${all[@]}" >"$MACHINES/facts.json"
  for machine in "$@"; do
    name=${machine%%=*}
    alive "machine-$name" && continue
    facts=$(facts_of "$name")
    registered "$name" "$(kind_of "$machine")"
    own_files "$name" "$facts"
    plug "$facts"
  done
  join "$image" || die "the image of the machines was not made"
  guest_kernel
  for name in "${@%%=*}"; do
    alive "machine-$name" || boot "$(facts_of "$name")"
  done
  for name in "${@%%=*}"; do
    await "machine-$name" 120 "become a ready node (its console: $LOGS/machine-$name.console.log)" ready "$name"
  done
  jq -c --arg logs "$LOGS" 'map(select(IN(.name; $ARGS.positional[])) + {console: "\($logs)/machine-\(.name).console.log"})' \
    "$MACHINES/facts.json" --args "${@%%=*}"
}

reboot() {
  prepare
  locked machines
  stop "machine-$1" 5
  guest_kernel
  boot "$(facts_of "$1")"
  ask "$1" 120 "" || die "$1 does not boot: see $LOGS/machine-$1.console.log"
}

burn() {
  local tap
  prepare
  locked machines
  stop "machine-$1" 5
  tap=$(tap_of "$(facts_of "$1")")
  ovs-vsctl --timeout=10 --if-exists del-port br-int "$tap"
  delete_link "$tap"
  rm -f "$MACHINES/taps/$tap"
}

# ready NAME: it is, and has no taint of a node that is not.
ready() {
  kubectl get node "$1" --output json |
    jq --exit-status --arg taint "$TAINT" '(.spec.taints | length == 1 and .[0].key == $taint)
      and any(.status.conditions[]?; .type == "Ready" and .status == "True")'
}

ask() { guest_ask "$SHORT/$1" "$2" "$3"; }

# down: every part is tried, whatever became of those before it.
down() {
  local failed=0 name files tap
  [ -d "$MACHINES/taps" ] || return 0
  for name in $(machines); do stop "machine-$name" 5; done
  if kubectl get --raw /readyz >/dev/null 2>&1; then
    for files in "$MACHINES"/*.files; do
      [ -e "$files" ] || continue
      name=$(basename "$files" .files)
      (run_logged machines kubectl delete --ignore-not-found "node/$name") || failed=1
      (run_logged machines kubectl --namespace kube-node-lease delete --ignore-not-found "lease/$name") || failed=1
    done
  fi
  for tap in "$MACHINES"/taps/*; do
    [ -e "$tap" ] || continue
    ! alive ovsdb || ovs-vsctl --timeout=5 --if-exists del-port br-int "${tap##*/}" || failed=1
    delete_link "${tap##*/}"
  done
  if answers "http://127.0.0.1:${KURYR_E2E_NEUTRON_PORT:-9696}/"; then
    (run_logged machines in_cloud down) || failed=1
  fi
  rm -rf "$SHORT"
  [ "$failed" != 0 ] || rm -rf "$MACHINES"/{*.files,*.image,facts.json,taps}
  return "$failed"
}

verb=${1:-help}
case $verb in
  up) up "${@:2}" ;;
  ask) ask "$2" "$3" "$4" ;;
  reboot) reboot "$2" ;;
  burn) burn "$2" ;;
  down)
    prepare
    locked machines
    down
    ;;
  status)
    say "Machines"
    for name in $(machines); do show_status "machine-$name"; done
    ;;
  *)
    usage
    [ "$verb" = help ]
    ;;
esac
