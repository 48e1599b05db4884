# shellcheck shell=bash
# etcd, kube-apiserver, kube-controller-manager and kube-scheduler.

start_etcd() {
  free_port etcd "$ETCD_PORT" KURYR_E2E_ETCD_PORT
  local url=http://127.0.0.1:$ETCD_PORT peers=http://127.0.0.1:$((ETCD_PORT + 1))
  start etcd etcd --data-dir "$KUBERNETES/etcd" --listen-client-urls "$url" --advertise-client-urls "$url" \
    --listen-peer-urls "$peers" --initial-advertise-peer-urls "$peers" --initial-cluster "default=$peers" --unsafe-no-fsync
  await etcd 30 "answered on $url" answers "$url/health"
}

# Where the Service "kubernetes" leads to, so it listens on an address that pods have a way to, and on no other.
start_apiserver() {
  node_address
  free_port apiserver "$APISERVER_PORT" KURYR_E2E_APISERVER_PORT "$NODE_IP"
  start apiserver kube-apiserver --bind-address="$NODE_IP" --secure-port="$APISERVER_PORT" --advertise-address="$NODE_IP" \
    --etcd-servers="http://127.0.0.1:$ETCD_PORT" --service-cluster-ip-range="$SERVICE_CIDR" --allow-privileged \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --client-ca-file="$KEYS/ca.crt" \
    --tls-cert-file="$KEYS/apiserver.crt" --tls-private-key-file="$KEYS/apiserver.key" \
    --kubelet-certificate-authority="$KEYS/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --kubelet-client-certificate="$KEYS/apiserver-kubelet-client.crt" --kubelet-client-key="$KEYS/apiserver-kubelet-client.key" \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$KEYS/service-accounts.pub" \
    --service-account-signing-key-file="$KEYS/service-accounts.key"
  await apiserver 60 "become ready" kubectl get --raw /readyz
}

# What it knows is in etcd. Asked politely it waits for watches that end only when their clients do.
ask_apiserver_to_stop() { kill -KILL "$(cut -d" " -f1 "$PIDS/apiserver")"; }

start_controller_manager() {
  local port=10257
  free_port controller-manager "$port" "nothing: kube-controller-manager's port number is fixed"
  start controller-manager kube-controller-manager --bind-address=127.0.0.1 --kubeconfig="$CONFIG/controller-manager.kubeconfig" \
    --service-account-private-key-file="$KEYS/service-accounts.key" --root-ca-file="$KEYS/ca.crt" \
    --use-service-account-credentials --leader-elect=false --flex-volume-plugin-dir="$KUBERNETES/kubelet/plugins"
  await controller-manager 30 "become healthy" answers "https://127.0.0.1:$port/healthz"
}

start_scheduler() {
  local port=10259
  free_port scheduler "$port" "nothing: kube-scheduler's port number is fixed"
  start scheduler kube-scheduler --bind-address=127.0.0.1 --kubeconfig="$CONFIG/scheduler.kubeconfig" --leader-elect=false
  await scheduler 30 "become healthy" answers "https://127.0.0.1:$port/healthz"
}
