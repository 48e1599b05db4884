# shellcheck shell=bash
# Open vSwitch 3.5, which is Debian 13's. The userspace datapath of Debian 12's 3.1 cannot be relied on: it keeps flows that OpenFlow
# has changed as long as packets use them, and dies on an assertion of its connection tracking. The programs that matter are
# unpacked into the cache with the libraries that they want; nothing of Debian 13 is installed.

OPENVSWITCH_PACKAGES=(
  openvswitch-switch openvswitch-common libc6 libgcc-s1 libssl3t64 libcap-ng0 libunbound8 libevent-2.1-7t64 libnuma1 libxdp1 libbpf1
  libelf1t64 zlib1g libzstd1
)
OPENVSWITCH=$CACHE/openvswitch-3.5-$(sha256sum <"${BASH_SOURCE[0]}" | cut -c1-12)

openvswitch() {
  [ ! -d "$OPENVSWITCH" ] || return 0
  (
    flock 8
    [ -d "$OPENVSWITCH" ] || unpack_openvswitch
  ) 8>"$OPENVSWITCH.lock"
}

# apt reads the lists of Debian 13 into folders of their own, from where it has those of Debian 12, and verifies what it fetches as ever.
unpack_openvswitch() {
  local new=$OPENVSWITCH.new libraries mirror program package loader
  local -a apt=(apt-get -qq -o Acquire::Retries=5 -o APT::Sandbox::User=root -o "Dir::Etc::SourceList=$new/sources.list"
    -o Dir::Etc::SourceParts=/dev/null -o "Dir::State=$new/state" -o Dir::State::Status=/dev/null -o "Dir::Cache=$new/cache")
  libraries=$OPENVSWITCH/usr/lib/$(uname -m)-linux-gnu
  # shellcheck disable=SC2016
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Codename: bookworm' 'Created-By: Packages' | head -n 1)
  [ -n "$mirror" ] || die "apt knows no mirror of Debian 12: apt-get update"
  rm -rf "$new"
  mkdir -p "$new"/{state/lists/partial,cache/archives/partial,packages,bin}
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$new/sources.list"
  run_logged openvswitch "${apt[@]}" update
  (cd "$new/packages" && run_logged openvswitch "${apt[@]}" download "${OPENVSWITCH_PACKAGES[@]}")
  for package in "$new"/packages/*.deb; do dpkg-deb --extract "$package" "$new"; done
  for program in usr/lib/openvswitch-switch/ovs-vswitchd usr/sbin/ovsdb-server usr/bin/ovsdb-tool; do
    loader=$(patchelf --print-interpreter "$new/$program")
    cp "$new/$program" "$new/bin"
    patchelf --set-interpreter "$libraries/${loader##*/}" --set-rpath "$libraries" "$new/bin/${program##*/}"
  done
  rm -rf "$new"/{state,cache,packages,sources.list}
  mv "$new" "$OPENVSWITCH"
}
