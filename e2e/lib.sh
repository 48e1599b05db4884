# shellcheck shell=bash
# shellcheck disable=SC2034  # used by those who source this file
# What the scripts of this folder share: where things are, services started and stopped by recorded pid, bounded waits, packages.
# Sourced, never run. File descriptor 9 is the lock of the invocation.
#
# State is in .e2e/ of the checkout (configuration, logs, pids, keys, kubeconfig, clouds.yaml); sockets are in $RUN, because a
# socket's path may have only 107 characters; what is worth keeping between checkouts is in $CACHE.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
E2E=$ROOT/e2e
STATE=$ROOT/.e2e
LOGS=$STATE/log
PIDS=$STATE/pids
RUN=/run/kuryr-e2e
CACHE=${KURYR_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/kuryr}
NODE=node0
# The node's address is on the loopback link: Kubernetes wants one that is not 127/8, and nobody outside shall reach it (TEST-NET-2).
NODE_IP=198.51.100.10
# The external network and what is on it beside the routers: the node, and a namespace that plays the rest of the world (a network for benchmarks, RFC 2544).
EXTERNAL_CIDR=198.18.0.0/24
NODE_EXTERNAL_IP=198.18.0.1
OUTSIDE_IP=198.18.0.2
OUTSIDE=kuryr-e2e-outside
SERVICE_CIDR=${KURYR_E2E_SERVICE_CIDR:-10.96.0.0/16}
BOOT=$(</proc/sys/kernel/random/boot_id)

CONTAINERD_SOCKET=$RUN/containerd/containerd.sock
export OVS_RUNDIR=$RUN/ovs OVN_RUNDIR=$RUN/ovn
export KUBECONFIG=$STATE/kubeconfig OS_CLIENT_CONFIG_FILE=$STATE/clouds.yaml
export PATH=$STATE/kubernetes/bin:$PATH:/usr/sbin:/sbin

say() { printf '%s\n' "$*"; }
die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# prepare: the checks and folders that every verb that starts or installs something needs.
prepare() {
  [ "$(id -u)" = 0 ] || die "the real stack needs root (packages, OVS, namespaces): run it as root, best on a machine or container made for it"
  mkdir -p "$LOGS" "$PIDS" "$RUN" "$CACHE"
  chmod 755 "$RUN"
  local owner=$STATE
  [ ! -e "$RUN/owner" ] || owner=$(<"$RUN/owner")
  if [ "$owner" != "$STATE" ] && any_alive "$owner/pids"; then
    die "the stack of another checkout is up: stop it first with $(dirname "$owner")/e2e/run down"
  fi
  printf '%s\n' "$STATE" >"$RUN/owner"
}

# write_env: what a person sources to use the stack with its own clients.
write_env() {
  cat >"$STATE/env" <<C
export KUBECONFIG=$KUBECONFIG OS_CLIENT_CONFIG_FILE=$OS_CLIENT_CONFIG_FILE OS_CLOUD=kuryr
export OVS_RUNDIR=$OVS_RUNDIR OVN_RUNDIR=$OVN_RUNDIR CONTAINERD_ADDRESS=$CONTAINERD_SOCKET CONTAINERD_NAMESPACE=k8s.io
export PATH=$STATE/kubernetes/bin:\$PATH
C
  ln -sfn env "$STATE/openrc"
}

# locked NAME: one invocation at a time works on NAME; a second one waits for the first. Services do not inherit the lock.
locked() {
  exec 9>"$RUN/$1.lock"
  flock --timeout 900 9 || die "another invocation has been working on $1 for 15 minutes; see $RUN/$1.lock"
}

# --- Services -----------------------------------------------------------------------------------------------------------------
# A service is started as the leader of a session of its own. Its pid is noted with its start time and the boot's id: together
# they name one process for ever, so that a number that the kernel has given to someone else is never signalled.

# read_stat PID: reads /proc/PID/stat into STAT, from its third field on: STAT[0] is the state, [3] the session, [19] the start time.
read_stat() {
  local line
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
  read -ra STAT <<<"${line##*) }"
}

same_process() { # PID START: is it alive and still the same one?
  read_stat "$1" && [ "${STAT[0]}" != Z ] && [ "${STAT[19]}" = "$2" ]
}

recorded_alive() { # FILE: does the process live that this record names?
  local pid start boot
  { read -r pid start boot <"$1"; } 2>/dev/null && [ "$boot" = "$BOOT" ] && same_process "$pid" "$start"
}

alive() { recorded_alive "$PIDS/$1"; }

any_alive_of() { # SERVICE...
  local name
  for name in "$@"; do ! alive "$name" || return 0; done
  return 1
}

any_alive() { # DIRECTORY of records
  local record
  for record in "$1"/*; do
    [ ! -e "$record" ] || ! recorded_alive "$record" || return 0
  done
  return 1
}

start() { # NAME COMMAND...
  local name=$1 pid
  shift
  printf -- '--- %(%F %T)T %s\n' -1 "$1" >>"$LOGS/$name.log"
  setsid -- "$@" >>"$LOGS/$name.log" 2>&1 </dev/null 9>&- &
  pid=$!
  read_stat "$pid" || STAT[19]=0
  printf '%s %s %s\n' "$pid" "${STAT[19]}" "$BOOT" >"$PIDS/$name"
}

session_of() { # PID: the processes whose session's leader is or was PID
  local stat pid
  for stat in /proc/[0-9]*/stat; do
    pid=${stat//[!0-9]/}
    ! read_stat "$pid" || [ "${STAT[3]}" != "$1" ] || printf '%s\n' "$pid"
  done
}

gone() { # PID START SECONDS: waits for a process to end; it is no child of ours, so there is nothing to be told by
  local deadline=$((SECONDS + $3))
  while same_process "$1" "$2"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

# stop NAME [SECONDS]: asks (with ask_NAME_to_stop, if there is such a function, else by SIGTERM), waits, and kills what is left of
# the session, but for containerd's: its shims hold the containers, which outlive it. Absent is success.
stop() {
  local name=$1 limit=${2:-20} pid start boot member
  { read -r pid start boot <"$PIDS/$name"; } 2>/dev/null || return 0
  if [ "$boot" = "$BOOT" ]; then
    if same_process "$pid" "$start"; then
      if declare -F "ask_${name}_to_stop" >/dev/null; then "ask_${name}_to_stop"; else kill -TERM "$pid"; fi 2>/dev/null || true
      gone "$pid" "$start" "$limit" || kill -KILL "$pid" 2>/dev/null || true
    fi
    # Another process with this number means that the session has been over for long: the kernel gives no number away that is in use.
    if [ "$name" != containerd ] && { ! read_stat "$pid" || [ "${STAT[19]}" = "$start" ]; }; then
      for member in $(session_of "$pid"); do kill -KILL "$member" 2>/dev/null || true; done
    fi
  fi
  rm -f "$PIDS/$name"
}

show_log() { # NAME
  printf '  the end of %s:\n' "$LOGS/$1.log" >&2
  tail -n "${2:-25}" "$LOGS/$1.log" 2>/dev/null | sed 's/^/  | /' >&2
}

# fresh_logs NAME...: forgets what earlier runs wrote.
fresh_logs() {
  local name
  for name in "$@"; do rm -rf "${LOGS:?}/$name" "$LOGS/$name.log"; done
}

# await NAME SECONDS WHAT COMMAND...: until COMMAND succeeds. A service that died is not waited for.
await() {
  local name=$1 limit=$2 what=$3 deadline
  shift 3
  deadline=$((SECONDS + limit))
  until "$@" >/dev/null 2>&1; do
    if ! alive "$name"; then
      show_log "$name"
      die "$name ended before it $what"
    elif ((SECONDS >= deadline)); then
      show_log "$name"
      die "$name runs, but has not $what within $limit s"
    fi
    sleep 0.05
  done
}

answers() { # URL
  curl --silent --insecure --noproxy '*' --max-time 2 --output /dev/null "$1"
}

# free_port NAME PORT SETTING [ADDRESS]: refuses to share a port number with a service that is already on the machine.
free_port() {
  local deadline=$((SECONDS + 20)) address=${4:-127.0.0.1}
  if alive "$1"; then return; fi
  # What was killed a moment ago may hold it still: a process is gone with its last thread.
  while (exec 3<>"/dev/tcp/$address/$2") 2>/dev/null; do
    ((SECONDS < deadline)) || die "port number $2 for $1 is taken by another service (ss -ltnp 'sport = $2'): stop it, or set $3"
    sleep 0.1
  done
}

# run_logged NAME COMMAND...: a command that ends; its output is shown only when it fails.
run_logged() {
  local name=$1
  shift
  if ! "$@" >>"$LOGS/$name.log" 2>&1 </dev/null; then
    show_log "$name"
    die "failed: ${1##*/} ${2:-}"
  fi
}

# join PID...: waits for functions started in the background; fails when one failed.
join() {
  local pid failed=0
  for pid in "$@"; do wait "$pid" || failed=1; done
  return "$failed"
}

# ensure SERVICE...: starts those that do not run.
ensure() {
  local name
  for name in "$@"; do alive "$name" || "start_${name//-/_}"; done
}

# on_service start|stop|restart SERVICE: what a script's verb of that name does, for one of $SERVICES.
on_service() {
  local verb=$1 name=${2:-}
  [[ -n $name && " ${SERVICES[*]} " == *" $name "* ]] || die "no service '$name'; there are: ${SERVICES[*]}"
  prepare
  locked "$(basename "$0" .sh)"
  [ "$verb" = start ] || stop "$name"
  [ "$verb" = stop ] || ensure "$name"
}

# usage: a script's first comment.
usage() { awk 'NR > 1 && !/^#/ {exit} NR > 1 {sub(/^# ?/, ""); print}' "$0"; }

# timed LABEL COMMAND...: says how long it took.
timed() {
  local label=$1 from=${EPOCHREALTIME/[.,]/} took
  shift
  "$@"
  took=$(((${EPOCHREALTIME/[.,]/} - from) / 100000))
  printf '  %-22s %4d.%d s\n' "$label" $((took / 10)) $((took % 10))
}

show_status() { # SERVICE...
  local name
  for name in "$@"; do
    if alive "$name"; then
      printf '  %-22s up    pid %s\n' "$name" "$(cut -d' ' -f1 "$PIDS/$name")"
    elif [ -e "$PIDS/$name" ]; then
      printf '  %-22s DEAD  see %s\n' "$name" "$LOGS/$name.log"
    else
      printf '  %-22s down\n' "$name"
    fi
  done
}

# new_secret FILE: made once, readable by root only.
new_secret() {
  if [ ! -s "$1" ]; then
    (
      umask 077
      mkdir -p "$(dirname "$1")"
      head -c 18 /dev/urandom | base64 | tr '+/' '-_' >"$1"
    )
  fi
}

# --- Links, mounts, namespaces -------------------------------------------------------------------------------------------------

# remember_namespaces: what is there before anything of ours is, so that it is never taken for ours.
remember_namespaces() {
  any_alive "$PIDS" || ip -o netns list | cut -d' ' -f1 >"$RUN/netns.before"
}

# clean_namespaces: the network namespaces that containerd made for pods of ours, which are empty by now.
clean_namespaces() {
  local name
  [ -e "$RUN/netns.before" ] || return 0
  for name in $(ip -o netns list | cut -d' ' -f1 | grep '^cni-' | sort | comm -23 - <(sort "$RUN/netns.before")); do
    [ -n "$(ip netns pids "$name")" ] || ip netns delete "$name" || true
  done
}

# clean_mounts: unmounts what is left under our folders, innermost first.
clean_mounts() {
  local mount
  awk -v state="$STATE/" -v run="$RUN/" 'index($5, state) == 1 || index($5, run) == 1 {print $5}' /proc/self/mountinfo | sort -r |
    while IFS= read -r mount; do umount --lazy "$(printf '%b' "$mount")" || true; done
}

delete_link() {
  [ ! -e "/sys/class/net/$1" ] || ip link delete "$1" 2>/dev/null || [ ! -e "/sys/class/net/$1" ] || say "cannot delete the link $1" >&2
}

# --- Packages -------------------------------------------------------------------------------------------------------------------

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# apt_install PACKAGE...: installs what is missing. Services of the packages are neither started now nor at the next boot.
apt_install() {
  local package missing=()
  command -v dpkg-query >/dev/null || die "the real stack is made of Debian 12's packages: run it on Debian 12, or in a container or VM of it"
  for package in "$@"; do is_installed "$package" || missing+=("$package"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  (
    locked apt
    trap allow_services EXIT
    forbid_services
    local -a apt=(apt-get -qq -o Acquire::Retries=5 -o DPkg::Lock::Timeout=600 -o APT::Sandbox::User=root
      -o "Dir::Cache::archives=$CACHE/apt" -o APT::Keep-Downloaded-Packages=true)
    export DEBIAN_FRONTEND=noninteractive
    mkdir -p "$CACHE/apt/partial"
    dpkg-query -W -f '${Package}\n' | sort >"$RUN/packages.before"
    run_logged apt "${apt[@]}" update
    run_logged apt "${apt[@]}" install --yes --no-install-recommends "${missing[@]}"
    dpkg-query -W -f '${Package}\n' | sort | comm -13 "$RUN/packages.before" - | disable_services
  )
}

# policy-rc.d is Debian's way to say whether a package's installation may start its services. The machine's own one is kept aside
# meanwhile; an empty copy means that there was none. A copy left by a killed run is put back first.
forbid_services() {
  allow_services
  local policy=/usr/sbin/policy-rc.d
  if [ -e "$policy" ]; then cp -a "$policy" "$policy.before-kuryr-e2e"; else : >"$policy.before-kuryr-e2e"; fi
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
}

allow_services() {
  local policy=/usr/sbin/policy-rc.d
  if [ -s "$policy.before-kuryr-e2e" ]; then
    mv "$policy.before-kuryr-e2e" "$policy"
  elif [ -e "$policy.before-kuryr-e2e" ]; then
    rm -f "$policy.before-kuryr-e2e" "$policy"
  fi
}

disable_services() { # reads package names
  command -v systemctl >/dev/null || return 0
  local package unit
  while read -r package; do
    dpkg-query -L "$package" | sed -n 's,^\(/usr\)\?/lib/systemd/system/\([^/]*\.service\)$,\2,p' | while read -r unit; do
      systemctl --quiet disable "$unit" >>"$LOGS/apt.log" 2>&1 || true
    done
  done
}
