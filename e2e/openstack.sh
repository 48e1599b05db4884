#!/usr/bin/env bash
# A real OpenStack network stack on this machine, from Debian's packages: Keystone, Neutron (ML2/OVN), Octavia (OVN provider),
# Open vSwitch with the userspace datapath, OVN and MariaDB. Everything listens on loopback or on a Unix socket.
#
#   e2e/openstack.sh install|up|down|clean|status        up and down may be repeated; clean is down and forgets all data
#   e2e/openstack.sh start|stop|restart SERVICE          one of the services that status lists
set -euo pipefail
# shellcheck source=e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

OPENSTACK=$STATE/openstack
KEYSTONE_PORT=${KURYR_E2E_KEYSTONE_PORT:-5000}
NEUTRON_PORT=${KURYR_E2E_NEUTRON_PORT:-9696}
OCTAVIA_PORT=${KURYR_E2E_OCTAVIA_PORT:-9876}
ML2_EXTENSIONS=${KURYR_E2E_ML2_EXTENSIONS-tag_ports_during_bulk_creation}

for part in openvswitch ovn mariadb keystone neutron octavia outside; do
  # shellcheck source=/dev/null
  . "$E2E/openstack/$part.sh"
done

PACKAGES=(
  openvswitch-switch ovn-central ovn-host mariadb-server keystone gunicorn neutron-api neutron-rpc-server octavia-api
  octavia-driver-agent python3-ovn-octavia-provider python3-openstackclient python3-octaviaclient python3-neutronclient
  patchelf nftables iptables conntrack iproute2 iputils-ping netcat-openbsd bind9-dnsutils tcpdump ethtool curl jq
)
# In the order in which they start.
SERVICES=(ovsdb vswitchd ovn-nb ovn-sb northd ovn-controller mariadb keystone neutron octavia-agent octavia)

packages() {
  apt_install "${PACKAGES[@]}"
  openvswitch
}

identity() {
  ensure keystone
  fill_keystone
}

# Two things at a time, as there are rarely fewer than two cores.
up() {
  prepare
  locked openstack
  remember_namespaces
  write_env
  timed "packages" packages
  say "OpenStack"
  any_alive_of "${SERVICES[@]}" || fresh_logs "${SERVICES[@]}"
  refuse_foreign_ovs
  timed "OVS and OVN" ensure ovsdb vswitchd ovn-nb ovn-sb northd ovn-controller &
  local network=$!
  timed "MariaDB" ensure mariadb
  timed "Keystone's schema" configure_keystone
  timed "Neutron's schema" configure_neutron &
  local schema=$!
  timed "Keystone" identity
  timed "Octavia's schema" configure_octavia
  join "$schema" "$network"
  durable
  timed "Neutron" ensure neutron &
  local neutron=$!
  timed "Octavia" ensure octavia-agent octavia &
  local octavia=$!
  join "$neutron"
  timed "outside" start_outside
  # It hears of the chassis a moment after it answers; until then no port can be bound.
  await neutron 60 "seen the agent of $NODE" agent_alive
  join "$octavia"
  say "OpenStack is up: . $STATE/env; openstack --os-cloud kuryr network list"
}

down() {
  local name
  for name in octavia octavia-agent neutron keystone; do
    stop "$name" 5 &
  done
  wait
  # The agent of the chassis first: it would otherwise take what the others do next for news. TERM lets it remove its chassis.
  for name in ovn-controller northd ovn-nb ovn-sb vswitchd ovsdb mariadb; do stop "$name"; done
  clean_outside
  clean_ovn
  clean_octavia
  rm -rf "$RUN/ovs" "$RUN/ovn" "$RUN/mariadb"
}

verb=${1:-help}
case $verb in
  install)
    prepare
    timed "packages" packages
    ;;
  up) up ;;
  down | clean)
    prepare
    locked openstack
    timed "OpenStack down" down
    [ "$verb" = down ] || rm -rf "$OPENSTACK" "$OS_CLIENT_CONFIG_FILE"
    ;;
  status)
    say "OpenStack"
    show_status "${SERVICES[@]}"
    ;;
  start | stop | restart) on_service "$@" ;;
  *)
    usage
    [ "$verb" = help ]
    ;;
esac
