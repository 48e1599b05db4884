# shellcheck shell=bash
# Octavia with the OVN provider: the API, and the agent through which the provider tells it what became of a load balancer.
# The provider looks for the agent's sockets at their default paths, whatever the configuration says.

OCTAVIA_SOCKETS=/var/run/octavia

configure_octavia() {
  local conf=$OPENSTACK/octavia
  mkdir -p "$conf"
  new_secret "$OPENSTACK/secrets/service"
  (
    umask 077
    cat >"$conf/octavia.conf" <<C
[DEFAULT]
transport_url = fake://
[api_settings]
bind_host = 127.0.0.1
bind_port = $OCTAVIA_PORT
enabled_provider_drivers = ovn:Octavia OVN driver
default_provider_driver = ovn
auth_strategy = keystone
[database]
connection = $(db_url octavia)
[oslo_messaging]
topic = octavia_prov
[driver_agent]
enabled_provider_agents = ovn
[ovn]
ovn_nb_connection = $OVN_NB
ovn_sb_connection = $OVN_SB
[neutron]
region_name = RegionOne
[keystone_authtoken]
$(service_auth octavia)
[service_auth]
$(service_auth octavia)
C
  )
  migrate octavia octavia-common octavia-db-manage --config-file "$conf/octavia.conf" upgrade head
}

start_octavia_agent() {
  mkdir -p "$OCTAVIA_SOCKETS"
  rm -f "$OCTAVIA_SOCKETS"/{status,stats,get}.sock
  start octavia-agent octavia-driver-agent --config-file "$OPENSTACK/octavia/octavia.conf"
  await octavia-agent 60 "opened its sockets" octavia_sockets
}

octavia_sockets() { [ -S "$OCTAVIA_SOCKETS/status.sock" ] && [ -S "$OCTAVIA_SOCKETS/stats.sock" ] && [ -S "$OCTAVIA_SOCKETS/get.sock" ]; }

start_octavia() {
  free_port octavia "$OCTAVIA_PORT" KURYR_E2E_OCTAVIA_PORT
  start octavia octavia-api --config-file "$OPENSTACK/octavia/octavia.conf"
  await octavia 90 "answered on http://127.0.0.1:$OCTAVIA_PORT" answers "http://127.0.0.1:$OCTAVIA_PORT/"
}

clean_octavia() {
  rm -f "$OCTAVIA_SOCKETS"/{status,stats,get}.sock
  rmdir "$OCTAVIA_SOCKETS" 2>/dev/null || true
}
