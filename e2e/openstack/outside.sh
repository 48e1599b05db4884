# shellcheck shell=bash
# The outside: an external network on br-ex, the node's own way into it, and a namespace that plays the rest of the world. Floating
# IPs are reached from there, and node ports by the node's address.

start_outside() {
  run_logged outside /usr/bin/python3 "$E2E/openstack/outside.py" --cloud admin --cidr "$EXTERNAL_CIDR" --gateway "$NODE_EXTERNAL_IP"
  ip address replace "$NODE_EXTERNAL_IP/${EXTERNAL_CIDR#*/}" dev br-ex
  ip link set br-ex up
  # What comes for a node port goes on to the cloud's router by the same link.
  echo 1 >/proc/sys/net/ipv4/conf/br-ex/forwarding
  echo 0 >/proc/sys/net/ipv4/conf/br-ex/send_redirects
  # The userspace datapath computes no checksums for others.
  ethtool -K br-ex tx off >/dev/null
  [ ! -e "/var/run/netns/$OUTSIDE" ] || return 0
  # A veth: an internal port would lose its link with the next restart of Open vSwitch.
  ip netns add "$OUTSIDE"
  ip link add kuryr-outside-b type veth peer name kuryr-outside netns "$OUTSIDE"
  echo 1 >/proc/sys/net/ipv6/conf/kuryr-outside-b/disable_ipv6
  ip link set kuryr-outside-b up
  ovs-vsctl --timeout=10 --may-exist add-port br-ex kuryr-outside-b
  ip netns exec "$OUTSIDE" ethtool -K kuryr-outside tx off >/dev/null
  ip -n "$OUTSIDE" link set lo up
  ip -n "$OUTSIDE" address add "$OUTSIDE_IP/${EXTERNAL_CIDR#*/}" dev kuryr-outside
  ip -n "$OUTSIDE" link set kuryr-outside up
  # The address that Kubernetes has of the node.
  ip -n "$OUTSIDE" route add "$NODE_IP/32" via "$NODE_EXTERNAL_IP"
}

clean_outside() { [ ! -e "/var/run/netns/$OUTSIDE" ] || ip netns delete "$OUTSIDE"; }
