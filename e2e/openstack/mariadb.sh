# shellcheck shell=bash
# MariaDB with its data in .e2e/ and no network: whoever may open its socket (in a folder of root's) may do all, so there are no
# accounts and no passwords.

db_url() { # NAME
  printf 'mysql+pymysql://root@localhost/%s?unix_socket=%s' "$1" "$RUN/mariadb/mariadb.sock"
}

sql() { mariadb --no-defaults --user=root --socket="$RUN/mariadb/mariadb.sock" --batch --execute "$1"; }

start_mariadb() {
  local data=$OPENSTACK/mariadb
  install -d -m 700 "$RUN/mariadb"
  if [ ! -d "$data/mysql" ]; then
    rm -rf "$data"
    run_logged mariadb mariadb-install-db --no-defaults --user=root --datadir="$data" --skip-test-db --auth-root-authentication-method=socket
  fi
  start mariadb mariadbd --no-defaults --user=root --datadir="$data" --socket="$RUN/mariadb/mariadb.sock" --pid-file="$RUN/mariadb/mariadb.pid" \
    --skip-networking --skip-grant-tables --performance-schema=OFF --max-connections=500
  await mariadb 60 "answered on its socket" sql 'select 1'
  sql 'create database if not exists keystone; create database if not exists neutron; create database if not exists octavia'
}

# migrate NAME PACKAGE COMMAND...: brings a schema up to date, once for every version of the package. Schema changes are hundreds
# of small transactions: a crash in their midst is answered by starting afresh, so they need not reach the disk one by one.
migrate() {
  local name=$1 version stamp=$OPENSTACK/$1/schema
  version=$(dpkg-query -W -f '${Version}' "$2")
  shift 2
  if [ "$(cat "$stamp" 2>/dev/null)" != "$version" ]; then
    sql 'set global innodb_flush_log_at_trx_commit = 0'
    run_logged "$name-schema" "$@"
    printf '%s\n' "$version" >"$stamp"
  fi
}

durable() { sql 'set global innodb_flush_log_at_trx_commit = 1'; }
