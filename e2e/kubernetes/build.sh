# shellcheck shell=bash
# What is built from Go modules (minutes), kept by version and by what it is built from: all of Kubernetes as one binary, and CoreDNS.

build() {
  local component
  mkdir -p "$KUBERNETES/bin"
  built hyperkube k8s.io/kubernetes kubernetes
  for component in kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl; do
    ln -sfn "$BUILT" "$KUBERNETES/bin/$component"
  done
  built coredns github.com/coredns/coredns coredns
  ln -sfn "$BUILT" "$KUBERNETES/bin/coredns"
}

# built FOLDER MODULE NAME: leaves in BUILT the executable that is made from e2e/FOLDER, which pins MODULE.
built() {
  local module=$E2E/$1 version key
  version=$(sed -nE "s,^(require )?\t?$2 v(.*),\2,p" "$module/go.mod")
  key=$version-$(cat "$module"/{go.mod,go.sum,main.go} | sha256sum | cut -c1-12)
  BUILT=$CACHE/$3-$key
  [ ! -x "$BUILT" ] || return 0
  command -v go >/dev/null || die "$3 is built from its Go modules: install Go 1.24 or later (https://go.dev/dl) and put it on the PATH"
  # Two builds at once would take twice as long each.
  (
    flock 8
    [ -x "$BUILT" ] || compile "$module" "$version" "$BUILT"
  ) 8>"$BUILT.lock"
}

compile() { # MODULE VERSION BINARY
  local minor=${2#*.} stamp=k8s.io/component-base/version
  say "  building ${3##*/} (the first time only; minutes)"
  local flags="-s -w -X $stamp.gitVersion=v$2 -X $stamp.gitMajor=${2%%.*} -X $stamp.gitMinor=${minor%%.*}"
  run_logged kubernetes-build env CGO_ENABLED=0 go build -C "$1" -trimpath -ldflags "$flags" -o "$3.new" .
  mv "$3.new" "$3"
}
