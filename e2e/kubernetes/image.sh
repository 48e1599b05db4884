# shellcheck shell=bash
# Two images, made here from busybox-static and imported: no registry is needed. Beware: busybox-static's wget dies in glibc's
# resolver; use nc. Their command ends at SIGTERM, which the first process of a container ignores unless it says otherwise.

PAUSE_IMAGE=kuryr.test/pause:1
BUSYBOX_IMAGE=kuryr.test/busybox:1

import_images() {
  local image root=$KUBERNETES/image applet
  mkdir -p "$root/rootfs/bin"
  cp /bin/busybox "$root/rootfs/bin/"
  for applet in sh sleep httpd nc ip ping cat echo ls test true false hostname ifconfig netstat timeout kill seq date head; do
    ln -sfn busybox "$root/rootfs/bin/$applet"
  done
  tar -C "$root/rootfs" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$root/rootfs.tar" .
  for image in "$PAUSE_IMAGE" "$BUSYBOX_IMAGE"; do
    [ "$(ctr_ images ls --quiet "name==$image")" = "$image" ] && continue
    /usr/bin/python3 "$E2E/kubernetes/image.py" "$image" "$root/rootfs.tar" "$root/image.tar" \
      /bin/sh -c "trap 'exit 0' TERM; sleep 1000000 & wait"
    run_logged images ctr_ images import --snapshotter native "$root/image.tar"
  done
}
