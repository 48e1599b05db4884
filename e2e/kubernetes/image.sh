# shellcheck shell=bash
# The images, made here of Debian's busybox-static and haproxy and our CoreDNS, and imported: no registry is needed. Beware:
# busybox-static's wget dies in glibc's resolver; use nc. The command of the first two ends at SIGTERM, which the first process of a
# container ignores unless it says otherwise.

PAUSE_IMAGE=kuryr.test/pause:1
BUSYBOX_IMAGE=kuryr.test/busybox:1
COREDNS_IMAGE=kuryr.test/coredns:1
HAPROXY_IMAGE=kuryr.test/haproxy:1

import_images() {
  local root=$KUBERNETES/image applet
  mkdir -p "$root"/{busybox,coredns,haproxy}/bin
  cp /bin/busybox "$root/busybox/bin/"
  for applet in sh sleep httpd nc ip ping cat echo ls test true false hostname ifconfig netstat timeout kill seq date head; do
    ln -sfn busybox "$root/busybox/bin/$applet"
  done
  import_image "$PAUSE_IMAGE" busybox /bin/sh -c "trap 'exit 0' TERM; sleep 1000000 & wait"
  import_image "$BUSYBOX_IMAGE" busybox /bin/sh -c "trap 'exit 0' TERM; sleep 1000000 & wait"
  cp --dereference "$KUBERNETES/bin/coredns" "$root/coredns/bin/"
  import_image "$COREDNS_IMAGE" coredns /bin/coredns -conf /etc/coredns/Corefile
  cp /usr/sbin/haproxy "$root/haproxy/bin/"
  # It is linked dynamically: its libraries come along, at their own paths.
  ldd /usr/sbin/haproxy | grep -o '/[^ ]*' | xargs -I{} cp --parents --dereference {} "$root/haproxy"
  import_image "$HAPROXY_IMAGE" haproxy /bin/haproxy -db -f /etc/haproxy/haproxy.cfg
}

import_image() { # IMAGE FOLDER COMMAND...
  local image=$1 tar=$KUBERNETES/image/$2.tar
  [ "$(ctr_ images ls --quiet "name==$image")" != "$image" ] || return 0
  tar -C "$KUBERNETES/image/$2" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$tar" .
  /usr/bin/python3 "$E2E/kubernetes/image.py" "$image" "$tar" "$tar.image" "${@:3}"
  run_logged images ctr_ images import --snapshotter native "$tar.image"
  rm -f "$tar" "$tar.image"
}
