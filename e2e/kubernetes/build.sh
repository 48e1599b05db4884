# shellcheck shell=bash
# All of Kubernetes as one binary, built from its Go modules (minutes), kept by version and by what it is built from.

build() {
  local module=$E2E/hyperkube version key binary component
  version=$(sed -n 's/^\tk8s.io\/kubernetes v//p' "$module/go.mod")
  key=$version-$(cat "$module"/{go.mod,go.sum,main.go} | sha256sum | cut -c1-12)
  binary=$CACHE/kubernetes-$key
  if [ ! -x "$binary" ]; then
    command -v go >/dev/null || die "Kubernetes is built from its Go modules: install Go 1.24 or later (https://go.dev/dl) and put it on the PATH"
    # Two builds at once would take twice as long each.
    (
      flock 8
      [ -x "$binary" ] || compile "$module" "$version" "$binary"
    ) 8>"$binary.lock"
  fi
  mkdir -p "$KUBERNETES/bin"
  for component in kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl; do
    ln -sfn "$binary" "$KUBERNETES/bin/$component"
  done
}

compile() { # MODULE VERSION BINARY
  local minor=${2#*.} stamp=k8s.io/component-base/version
  say "  building Kubernetes $2 (the first time only; minutes)"
  local flags="-s -w -X $stamp.gitVersion=v$2 -X $stamp.gitMajor=${2%%.*} -X $stamp.gitMinor=${minor%%.*}"
  run_logged kubernetes-build env CGO_ENABLED=0 go build -C "$1" -trimpath -ldflags "$flags" -o "$3.new" .
  mv "$3.new" "$3"
}
