# shellcheck shell=bash
# Open vSwitch with the userspace datapath (no kernel module is needed), and OVN: northbound and southbound databases,
# northd, and the controller of this machine's chassis.

OVN_NB=unix:$RUN/ovn/ovnnb_db.sock
OVN_SB=unix:$RUN/ovn/ovnsb_db.sock

start_ovsdb() {
  mkdir -p "$RUN/ovs" "$OPENSTACK/ovs"
  [ -f "$OPENSTACK/ovs/conf.db" ] || run_logged ovsdb "$OPENVSWITCH/bin/ovsdb-tool" create "$OPENSTACK/ovs/conf.db" "$OPENVSWITCH/usr/share/openvswitch/vswitch.ovsschema"
  start ovsdb "$OPENVSWITCH/bin/ovsdb-server" "$OPENSTACK/ovs/conf.db" --remote="punix:$RUN/ovs/db.sock" \
    --remote=db:Open_vSwitch,Open_vSwitch,manager_options --pidfile="$RUN/ovs/ovsdb-server.pid" --unixctl="$RUN/ovs/ovsdb-server.ctl"
  await ovsdb 20 "answered on its socket" ovs-vsctl --no-wait --timeout=2 init
  ovs-vsctl --no-wait --timeout=5 set Open_vSwitch . external-ids:system-id="$NODE" external-ids:hostname="$NODE" \
    external-ids:ovn-remote="$OVN_SB" external-ids:ovn-encap-type=geneve external-ids:ovn-encap-ip=127.0.0.1 \
    external-ids:ovn-bridge-datapath-type=netdev external-ids:ovn-cms-options=enable-chassis-as-gw \
    external-ids:ovn-bridge-mappings=physnet1:br-ex \
    -- --may-exist add-br br-ex -- set Bridge br-ex datapath_type=netdev
}

# --monitor, as packages start it: one that dies is started again, and e2e/run says that it happened (see vswitchd_crashes).
start_vswitchd() {
  start vswitchd "$OPENVSWITCH/bin/ovs-vswitchd" "unix:$RUN/ovs/db.sock" --monitor --pidfile="$RUN/ovs/ovs-vswitchd.pid" --unixctl="$RUN/ovs/ovs-vswitchd.ctl"
  await vswitchd 20 "set up br-ex" test -e /sys/class/net/br-ex
}

start_ovn_nb() { start_ovn_database nb ovn-nbctl; }
start_ovn_sb() { start_ovn_database sb ovn-sbctl; }

start_ovn_database() { # nb|sb CLIENT
  local file=$OPENSTACK/ovn/$1.db socket=$RUN/ovn/ovn${1}_db.sock
  mkdir -p "$RUN/ovn" "$OPENSTACK/ovn"
  [ -f "$file" ] || run_logged "ovn-$1" ovsdb-tool create "$file" "/usr/share/ovn/ovn-$1.ovsschema"
  start "ovn-$1" ovsdb-server "$file" --remote="punix:$socket" --pidfile="$RUN/ovn/ovn${1}_db.pid" --unixctl="$RUN/ovn/ovn${1}_db.ctl"
  await "ovn-$1" 20 "answered on its socket" "$2" --db="unix:$socket" --timeout=2 init
}

start_northd() {
  start northd ovn-northd --ovnnb-db="$OVN_NB" --ovnsb-db="$OVN_SB" --pidfile="$RUN/ovn/ovn-northd.pid" --unixctl="$RUN/ovn/ovn-northd.ctl"
}

start_ovn_controller() {
  start ovn-controller ovn-controller "unix:$RUN/ovs/db.sock" --pidfile="$RUN/ovn/ovn-controller.pid"
  await ovn-controller 30 "made br-int" test -e /sys/class/net/br-int
}

# Its monitor, which is the process that was started, ends when ovs-vswitchd ends of itself.
ask_vswitchd_to_stop() { ovs-appctl --timeout=5 --target="$RUN/ovs/ovs-vswitchd.ctl" exit; }

# vswitchd_crashes: how many times its monitor had to start ovs-vswitchd again.
vswitchd_crashes() {
  grep -c 'died, .*restarting' "$LOGS/vswitchd.log" 2>/dev/null || true
}

# ovs_links: the links that are plugged into OVS or made by it, from its database, which can be read with nothing running.
ovs_links() {
  [ ! -f "$OPENSTACK/ovs/conf.db" ] ||
    ovsdb-tool query "$OPENSTACK/ovs/conf.db" \
      '["Open_vSwitch",{"op":"select","table":"Interface","where":[],"columns":["name","type"]}]' 2>/dev/null |
    jq -r '.[0].rows[] | select(.type == "" or .type == "internal") | .name'
}

# clean_ovn: those links (bridges of the userspace datapath are taps that outlive ovs-vswitchd), and the database that names them.
clean_ovn() {
  local link
  for link in $(ovs_links) ovs-netdev; do delete_link "$link"; done
  rm -f "$OPENSTACK"/ovs/{conf.db,.conf.db.~lock~}
}

# refuse_foreign_ovs: two Open vSwitches cannot both have a bridge of one name. What a killed one of another checkout left is nobody's.
refuse_foreign_ovs() {
  local link
  alive vswitchd && return
  clean_ovn
  for link in br-int br-ex ovs-netdev; do
    [ -e "/sys/class/net/$link" ] || continue
    { [ -e "/sys/class/net/$link/tun_flags" ] && ! pgrep -x ovs-vswitchd >/dev/null && ip link delete "$link"; } ||
      die "there is a link $link that is not of this stack: stop the Open vSwitch that made it (ip -d link show $link)"
  done
}
