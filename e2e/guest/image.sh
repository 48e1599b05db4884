# shellcheck shell=bash
# A virtual machine for tests: Debian's cloud kernel, which has what the machine's own kernel may lack (8021q, ipvlan), and an initial
# RAM disk with busybox and the programs that are to run in it. It boots in seconds, also without hardware support. Sourced after lib.sh.
#
#   guest_packages                    installs what is needed
#   guest_kernel                      fetches the kernel; sets GUEST_KERNEL (a file) and GUEST_MODULES (a folder)
#   guest_image OUT [FILE=PATH]...    makes the RAM disk, with each FILE at PATH and the libraries that it needs
#   guest_qemu IMAGE SOCKET CONSOLE   sets QEMU to the command that boots it: commands on the unix socket, the console into a file
#   guest_ask SOCKET SECONDS COMMAND  runs a shell command in it: its output, its exit code (124: it takes too long, 125: no machine)

GUEST=$E2E/guest
# Those that do not exist as files are built into the kernel.
GUEST_WANTS=(virtio_pci virtio_net virtio_rng 8021q macvlan ipvlan veth bridge nf_tables nft_ct nft_nat nft_masq nft_chain_nat nft_fib_inet nft_redir nf_conntrack_netlink)
GUEST_MEMORY=${KURYR_GUEST_MEMORY:-512}
# Software emulation works everywhere; where the hardware's does, `kvm` is faster.
GUEST_ACCEL=${KURYR_GUEST_ACCEL:-tcg}

guest_packages() {
  "$ROOT/tools/need" qemu-system-x86_64 qemu-system-x86
  "$ROOT/tools/need" busybox busybox-static
  "$ROOT/tools/need" modinfo kmod
}

guest_kernel() {
  local package folder=$CACHE/guest
  package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {print $2; exit}')
  [ -n "$package" ] || die "apt does not know linux-image-cloud-amd64: run apt-get update"
  GUEST_MODULES=$folder/$package/lib/modules
  if [ ! -e "$folder/$package/complete" ]; then
    mkdir -p "$folder/$package"
    (cd "$folder" && apt-get -qq -o Acquire::Retries=5 download "$package" >/dev/null) || die "cannot download $package"
    dpkg-deb --extract "$folder/$package"_*.deb "$folder/$package"
    rm -f "$folder/$package"_*.deb
    touch "$folder/$package/complete"
  fi
  GUEST_KERNEL=$(echo "$folder/$package"/boot/vmlinuz-*)
}

# put_module ROOT NAME: the module and all that it needs, in the order in which they are loaded.
put_module() {
  local file needs need
  file=$(find "$GUEST_MODULES" -name "$2.ko*" -print -quit)
  if [ -z "$file" ] || grep -qx "$2" "$1/modules/order" 2>/dev/null; then return; fi
  needs=$(modinfo --field depends "$file")
  for need in ${needs//,/ }; do put_module "$1" "$need"; done
  case $file in
    *.xz) xz --decompress --stdout "$file" >"$1/modules/$2.ko" ;;
    *) cp "$file" "$1/modules/$2.ko" ;;
  esac
  printf '%s\n' "$2" >>"$1/modules/order"
}

guest_image() {
  local out=$1 root file module
  shift
  root=$(mktemp --directory)
  mkdir -p "$root"/{bin,dev,etc,modules,proc,root,run,sys,tmp,var}
  ln -s ../run "$root/var/run"
  cp --dereference "$(command -v busybox)" "$root/bin/busybox"
  cp "$GUEST/init" "$root/init"
  for module in "${GUEST_WANTS[@]}"; do put_module "$root" "$module"; done
  for file; do
    mkdir -p "$root/$(dirname "${file#*=}")"
    cp --dereference "${file%%=*}" "$root/${file#*=}"
    # What is static or no program has no libraries.
    { ldd "${file%%=*}" 2>/dev/null | grep -o '/[^ ]*' || true; } | xargs --no-run-if-empty -I{} cp --parents --dereference --no-clobber {} "$root"
  done
  # Not compressed: to unpack it would take the guest longer than to read it.
  (cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$out.new"
  mv "$out.new" "$out"
  rm -rf "$root"
}

guest_qemu() {
  QEMU=(qemu-system-x86_64 -machine "q35,accel=$GUEST_ACCEL" -cpu max -m "$GUEST_MEMORY" -smp 1 -nodefaults -display none -no-reboot
    -kernel "$GUEST_KERNEL" -initrd "$1" -append "console=ttyS0 quiet panic=-1" -serial "file:$3"
    -chardev "socket,id=commands,path=$2,server=on,wait=off" -serial chardev:commands)
}

guest_ask() { /usr/bin/python3 "$GUEST/ask" "$@"; }
