# shellcheck shell=bash
# Neutron with ML2/OVN. No message queue: with OVN the API is all there is.

configure_neutron() {
  local conf=$OPENSTACK/neutron
  mkdir -p "$conf"/{state,lock}
  new_secret "$OPENSTACK/secrets/service"
  (
    umask 077
    cat >"$conf/neutron.conf" <<C
[DEFAULT]
core_plugin = ml2
service_plugins = ovn-router,trunk,segments,qos,port_forwarding
auth_strategy = keystone
transport_url = fake://
bind_host = 127.0.0.1
bind_port = $NEUTRON_PORT
api_workers = 2
rpc_workers = 0
state_path = $conf/state
api_paste_config = /etc/neutron/api-paste.ini
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
[database]
connection = $(db_url neutron)
[oslo_concurrency]
lock_path = $conf/lock
[quotas]
default_quota = -1
quota_network = -1
quota_subnet = -1
quota_port = -1
quota_security_group = -1
quota_security_group_rule = -1
quota_router = -1
quota_floatingip = -1
[keystone_authtoken]
$(service_auth neutron)
C
  )
  # tag_ports_during_bulk_creation lets a port carry its tags from its first moment on.
  cat >"$conf/ml2.ini" <<C
[ml2]
mechanism_drivers = ovn
type_drivers = local,flat,vlan,geneve
tenant_network_types = geneve
extension_drivers = port_security,qos${ML2_EXTENSIONS:+,$ML2_EXTENSIONS}
overlay_ip_version = 4
[ml2_type_flat]
flat_networks = physnet1
[ml2_type_geneve]
vni_ranges = 1:65536
max_header_size = 38
[securitygroup]
enable_security_group = true
[ovn]
ovn_nb_connection = $OVN_NB
ovn_sb_connection = $OVN_SB
enable_distributed_floating_ip = false
ovn_metadata_enabled = false
C
  migrate neutron neutron-common neutron-db-manage --config-file "$conf/neutron.conf" --config-file "$conf/ml2.ini" upgrade heads
}

start_neutron() {
  free_port neutron "$NEUTRON_PORT" KURYR_E2E_NEUTRON_PORT
  start neutron neutron-server --config-file "$OPENSTACK/neutron/neutron.conf" --config-file "$OPENSTACK/neutron/ml2.ini"
  await neutron 120 "answered on http://127.0.0.1:$NEUTRON_PORT" answers "http://127.0.0.1:$NEUTRON_PORT/"
}

agent_alive() { openstack --os-cloud admin network agent list --host "$NODE" --format json | jq --exit-status 'any(.[]; .Alive)'; }
