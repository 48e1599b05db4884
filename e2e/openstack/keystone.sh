# shellcheck shell=bash
# Keystone behind gunicorn (uwsgi's plain HTTP socket resets some POSTs), and what is in it: the catalog, the services' users,
# and a project, a user and an application credential for Kuryr.

KEYSTONE_URL=http://127.0.0.1:$KEYSTONE_PORT/v3

configure_keystone() {
  local conf=$OPENSTACK/keystone
  mkdir -p "$conf"
  install -d -m 700 "$conf/fernet" "$conf/credential"
  new_secret "$OPENSTACK/secrets/admin"
  cat >"$conf/keystone.conf" <<C
[database]
connection = $(db_url keystone)
[token]
provider = fernet
expiration = 86400
[fernet_tokens]
key_repository = $conf/fernet
[credential]
key_repository = $conf/credential
# Each of these would cost every new token a second of processor time: to prove a password, and to look everything up at each look at it.
[identity]
password_hash_rounds = 4
[cache]
enabled = true
backend = oslo_cache.dict
C
  cat >"$conf/wsgi_app.py" <<'C'
import sys

sys.argv = ["keystone"]
from keystone.server.wsgi import initialize_public_application

application = initialize_public_application()
C
  migrate keystone keystone keystone_schema
}

keystone_schema() {
  local manage=(keystone-manage --config-file "$OPENSTACK/keystone/keystone.conf")
  "${manage[@]}" db_sync &&
    "${manage[@]}" fernet_setup --keystone-user root --keystone-group root &&
    "${manage[@]}" credential_setup --keystone-user root --keystone-group root &&
    OS_BOOTSTRAP_PASSWORD=$(<"$OPENSTACK/secrets/admin") "${manage[@]}" bootstrap --bootstrap-region-id RegionOne \
      --bootstrap-admin-url "$KEYSTONE_URL" --bootstrap-public-url "$KEYSTONE_URL" --bootstrap-internal-url "$KEYSTONE_URL"
}

start_keystone() {
  free_port keystone "$KEYSTONE_PORT" KURYR_E2E_KEYSTONE_PORT
  OS_KEYSTONE_CONFIG_DIR=$OPENSTACK/keystone OS_KEYSTONE_CONFIG_FILES=keystone.conf PYTHONPATH=$OPENSTACK/keystone \
    start keystone gunicorn --workers 1 --threads 8 --bind "127.0.0.1:$KEYSTONE_PORT" wsgi_app:application
  await keystone 60 "answered on $KEYSTONE_URL" answers "$KEYSTONE_URL"
}

# fill_keystone: done again only when what would be filled in has changed.
fill_keystone() {
  local user stamp=$OPENSTACK/keystone/filled wanted
  wanted="$(sha256sum <"$E2E/openstack/identity.py") $KEYSTONE_PORT $NEUTRON_PORT $OCTAVIA_PORT"
  [ ! -s "$OS_CLIENT_CONFIG_FILE" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || return 0
  for user in service kuryr; do new_secret "$OPENSTACK/secrets/$user"; done
  run_logged keystone-catalog /usr/bin/python3 "$E2E/openstack/identity.py" "$OPENSTACK/secrets" "$OS_CLIENT_CONFIG_FILE" \
    --keystone "$KEYSTONE_URL" --neutron "http://127.0.0.1:$NEUTRON_PORT" --octavia "http://127.0.0.1:$OCTAVIA_PORT"
  printf '%s\n' "$wanted" >"$stamp"
}

# service_auth USER: the lines with which a service signs in at Keystone.
service_auth() {
  cat <<C
www_authenticate_uri = http://127.0.0.1:$KEYSTONE_PORT
auth_url = http://127.0.0.1:$KEYSTONE_PORT
auth_type = password
user_domain_id = default
project_domain_id = default
project_name = service
username = $1
password = $(<"$OPENSTACK/secrets/service")
C
}
