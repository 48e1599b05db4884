#!/usr/bin/env bash
# A real single-node Kubernetes on this machine: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, containerd and a
# kubelet; no kube-proxy, and no pod network until one is chosen. Everything listens on loopback.
#
#   e2e/kubernetes.sh install|up|down|clean|status    up and down may be repeated; clean is down and forgets all data
#   e2e/kubernetes.sh packages|build                  the two parts of install
#   e2e/kubernetes.sh start|stop|restart SERVICE      one of the services that status lists
#   e2e/kubernetes.sh cni bridge|none|FILE            the pod network: the plain bridge plugin, none, or a CNI configuration
set -euo pipefail
# shellcheck source=e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

KUBERNETES=$STATE/kubernetes
APISERVER_PORT=${KURYR_E2E_APISERVER_PORT:-6443}
ETCD_PORT=${KURYR_E2E_ETCD_PORT:-2379}

for part in build keys control-plane node image; do
  # shellcheck source=/dev/null
  . "$E2E/kubernetes/$part.sh"
done

PACKAGES=(etcd-server containerd runc containernetworking-plugins busybox-static haproxy openssl iproute2 curl jq)
SERVICES=(etcd apiserver controller-manager scheduler containerd kubelet)

control_plane() { ensure etcd apiserver controller-manager scheduler; }

up() {
  prepare
  locked kubernetes
  remember_namespaces
  write_env
  timed "packages" apt_install "${PACKAGES[@]}"
  timed "build" build
  say "Kubernetes"
  if ! any_alive_of "${SERVICES[@]}"; then
    clean_kubernetes
    fresh_logs "${SERVICES[@]}" pods
  fi
  make_keys
  timed "control plane" control_plane &
  local plane=$!
  timed "containerd" ensure containerd
  timed "images" import_images
  join "$plane"
  timed "kubelet" ensure kubelet
  await kubelet 30 "registered $NODE" kubectl get node "$NODE"
  # Without it no pod may be made.
  await controller-manager 30 "made the default service account" kubectl get serviceaccount default
  say "Kubernetes is up: . $STATE/env; kubectl get nodes      (no pod network yet: e2e/kubernetes.sh cni bridge, or e2e/kuryr.sh up)"
}

down() {
  stop kubelet 10
  stop_containers
  stop containerd 10
  local name
  for name in scheduler controller-manager apiserver; do
    stop "$name" 10 &
  done
  wait
  stop etcd 10
  clean_kubernetes
}

# clean_kubernetes: a cluster does not outlive its containers, so each one begins empty.
clean_kubernetes() {
  clean_node
  rm -rf "$KUBERNETES"/{etcd,keys,config,kubelet,containerd} "$KUBECONFIG"
}

verb=${1:-help}
case $verb in
  packages | install)
    prepare
    timed "packages" apt_install "${PACKAGES[@]}"
    [ "$verb" = packages ] || timed "build" build
    ;;
  build)
    mkdir -p "$LOGS" "$CACHE"
    timed "build" build
    ;;
  up) up ;;
  down | clean)
    prepare
    locked kubernetes
    timed "Kubernetes down" down
    [ "$verb" = down ] || rm -rf "$KUBERNETES"
    ;;
  status)
    say "Kubernetes"
    show_status "${SERVICES[@]}"
    ;;
  start | stop | restart) on_service "$@" ;;
  cni)
    prepare
    choose_network "${2:?bridge, none, or a CNI configuration file}"
    ;;
  *)
    usage
    [ "$verb" = help ]
    ;;
esac
