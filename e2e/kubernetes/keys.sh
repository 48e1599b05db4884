# shellcheck shell=bash
# A certificate authority for the cluster, a certificate for each of its parts, and their kubeconfigs. RBAC and the Node
# authorizer hold for all but the person at the keyboard (admin).

KEYS=$KUBERNETES/keys
CONFIG=$KUBERNETES/config

make_keys() {
  install -d -m 700 "$KEYS" "$CONFIG"
  if [ ! -s "$KEYS/ca.crt" ]; then
    new_key ca
    openssl req -x509 -new -key "$KEYS/ca.key" -subj /CN=kuryr-e2e -days 365 -out "$KEYS/ca.crt"
    new_key service-accounts
    openssl pkey -in "$KEYS/service-accounts.key" -pubout -out "$KEYS/service-accounts.pub"
    certificate apiserver /CN=kube-apiserver "IP:127.0.0.1,IP:$NODE_IP,IP:${SERVICE_CIDR%.*}.1,DNS:localhost,DNS:kubernetes.default.svc"
    certificate apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
    certificate kubelet "/O=system:nodes/CN=system:node:$NODE" "IP:$NODE_IP,IP:127.0.0.1,DNS:$NODE"
    certificate controller-manager /CN=system:kube-controller-manager
    certificate scheduler /CN=system:kube-scheduler
    certificate admin /O=system:masters/CN=admin
  fi
  local name
  for name in kubelet controller-manager scheduler; do certificate_kubeconfig "$name" "$CONFIG/$name.kubeconfig"; done
  certificate_kubeconfig admin "$KUBECONFIG"
}

new_key() {
  (
    umask 077
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$KEYS/$1.key"
  )
}

certificate() { # NAME SUBJECT [SUBJECT_ALTERNATIVE_NAMES]: for servers and clients alike
  new_key "$1"
  local extensions="basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n${3:+subjectAltName=$3\n}"
  openssl req -new -key "$KEYS/$1.key" -subj "$2" |
    openssl x509 -req -CA "$KEYS/ca.crt" -CAkey "$KEYS/ca.key" -CAcreateserial -days 365 -extfile <(printf '%b' "$extensions") \
      -out "$KEYS/$1.crt" 2>/dev/null
}

certificate_kubeconfig() { # NAME FILE
  kubeconfig "$2" "client-certificate-data: $(base64 -w0 "$KEYS/$1.crt")" "client-key-data: $(base64 -w0 "$KEYS/$1.key")"
}

kubeconfig() { # FILE USER_LINE...
  local file=$1
  shift
  (
    umask 077
    cat >"$file.new" <<C
apiVersion: v1
kind: Config
current-context: kuryr-e2e
contexts: [{name: kuryr-e2e, context: {cluster: kuryr-e2e, user: user}}]
clusters:
- name: kuryr-e2e
  cluster:
    server: https://$NODE_IP:$APISERVER_PORT
    certificate-authority-data: $(base64 -w0 "$KEYS/ca.crt")
users:
- name: user
  user:
$(printf '    %s\n' "$@")
C
  )
  mv "$file.new" "$file"
}
