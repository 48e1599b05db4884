# shellcheck shell=bash
# The node: containerd, the kubelet, the folders of the pod network, and cleaning up after all of them.

CNI_CONF=$KUBERNETES/cni
CNI_BIN=$KUBERNETES/cni-bin

# Tried: without CAP_SYS_RESOURCE runc cannot lower oom_score_adj, so containerd must not ask for it; overlayfs may be missing, so
# the native snapshotter is used.
start_containerd() {
  local config=$CONFIG/containerd.toml plugin
  mkdir -p "$CNI_CONF" "$CNI_BIN" "$CONFIG" "$RUN/containerd"
  for plugin in loopback bridge host-local portmap; do ln -sfn "/usr/lib/cni/$plugin" "$CNI_BIN/$plugin"; done
  cat >"$config" <<C
version = 2
root = "$KUBERNETES/containerd"
state = "$RUN/containerd/state"
[grpc]
  address = "$CONTAINERD_SOCKET"
[ttrpc]
  address = "$CONTAINERD_SOCKET.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "$PAUSE_IMAGE"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "$RUN/containerd/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$CNI_BIN"
    conf_dir = "$CNI_CONF"
C
  start containerd containerd --config "$config"
  await containerd 30 "answered on its socket" ctr_ version
}

ctr_() { ctr --address "$CONTAINERD_SOCKET" --namespace k8s.io "$@"; }

node_address() { ip address replace "$NODE_IP/32" dev lo; }

# Tried: with cgroup v1 the kubelet must be 1.34 or older (later ones refuse it unless told otherwise), without cgroups per QoS class.
start_kubelet() {
  local config=$CONFIG/kubelet.yaml root=$KUBERNETES/kubelet
  free_port kubelet 10250 "nothing: a second kubelet is not supported"
  node_address
  mkdir -p "$root"
  cat >"$config" <<C
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NODE_IP
healthzBindAddress: 127.0.0.1
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$KEYS/ca.crt"}}
authorization: {mode: Webhook}
tlsCertFile: $KEYS/kubelet.crt
tlsPrivateKeyFile: $KEYS/kubelet.key
containerRuntimeEndpoint: unix://$CONTAINERD_SOCKET
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
makeIPTablesUtilChains: false
resolvConf: ""
maxPods: 250
imageGCHighThresholdPercent: 100
evictionHard: {nodefs.available: "1%", imagefs.available: "1%", memory.available: "50Mi"}
podLogsDir: $LOGS/pods
volumePluginDir: $root/plugins
C
  start kubelet kubelet --config="$config" --kubeconfig="$CONFIG/kubelet.kubeconfig" --root-dir="$root" --cert-dir="$root/pki" \
    --hostname-override="$NODE" --node-ip="$NODE_IP"
  await kubelet 60 "become healthy" answers http://127.0.0.1:10248/healthz
}

# choose_network bridge|none|FILE: containerd notices by itself; the node is ready when there is a network.
choose_network() {
  local file=$1 old
  case $1 in
    bridge) file=$E2E/cni-bridge.conflist ;;
    none) file='' ;;
    *) [ -r "$file" ] || die "there is no CNI configuration $file" ;;
  esac
  mkdir -p "$CNI_CONF"
  # The new one comes before the old ones go: at no time is there none.
  if [ -n "$file" ]; then
    cp "$file" "$CNI_CONF/.new"
    mv "$CNI_CONF/.new" "$CNI_CONF/10-${file##*/}"
  fi
  for old in "$CNI_CONF"/*; do [ "$old" = "$CNI_CONF/10-${file##*/}" ] || rm -f "$old"; done
  [ -n "$file" ] || return 0
  kubectl wait "node/$NODE" --for=condition=Ready --timeout=60s >/dev/null ||
    die "$NODE did not become ready with the pod network '$1'; see $LOGS/kubelet.log and $LOGS/containerd.log"
  # The taint of a node that was not ready goes a moment after the condition comes.
  await controller-manager 30 "taken the taint from $NODE" untainted
}

untainted() { [ -z "$(kubectl get node "$NODE" --output jsonpath='{.spec.taints}')" ]; }

# --- Cleaning up ---------------------------------------------------------------------------------------------------------------

# our_shims: pid and id of each container shim of our containerd; it names its containerd's socket among its arguments.
our_shims() {
  local file
  for file in /proc/[0-9]*/cmdline; do
    { tr '\0' ' ' <"$file" && echo; } 2>/dev/null |
      sed -n "s,^[^ ]*containerd-shim[^ ]* .*-id \([^ ]*\) -address $CONTAINERD_SOCKET .*,${file//[!0-9]/} \1,p"
  done
}

# stop_containers: all containers and their shims, whether containerd lives or died. A container dies with its first process.
stop_containers() {
  local shims shim id child
  shims=$(our_shims)
  while read -r shim id; do
    [ -n "$id" ] || continue
    for child in $(pgrep --parent "$shim"); do kill -KILL "$child" 2>/dev/null || true; done
  done <<<"$shims"
  if alive containerd; then
    for id in $(ctr_ task ls --quiet 2>/dev/null); do ctr_ task delete --force "$id" >/dev/null 2>&1 || true; done
    for id in $(ctr_ container ls --quiet 2>/dev/null); do ctr_ container delete "$id" >/dev/null 2>&1 || true; done
  fi
  while read -r shim id; do
    [ -n "$id" ] || continue
    kill -KILL "$shim" 2>/dev/null || true
    rm -f "/run/containerd/s/$(printf '%s' "$CONTAINERD_SOCKET/k8s.io/$id" | sha256sum | cut -d' ' -f1)"
  done <<<"$shims"
}

clean_node() {
  clean_namespaces
  clean_mounts
  delete_link kuryr-e2e0
  ip address delete "$NODE_IP/32" dev lo 2>/dev/null || true
  rm -rf "$RUN/containerd" "$RUN/bridge" "$CNI_CONF"
  # Empty control groups of containers whose runtime was killed; a busy one is somebody else's and refuses.
  find /sys/fs/cgroup/*/k8s.io /sys/fs/cgroup/k8s.io -depth -type d -exec rmdir {} + 2>/dev/null || true
  # The kubelet's socket for device plugins has a fixed place.
  rm -f /var/lib/kubelet/device-plugins/kubelet.sock
  rmdir -p /var/lib/kubelet/device-plugins 2>/dev/null || true
}
