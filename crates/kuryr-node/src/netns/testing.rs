//! Namespaces for tests, for root and for ordinary users alike.

use crate::netlink::{Socket, link};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
};

const INSIDE: &str = "KURYR_TEST_INSIDE";

/// Runs a test in fresh network and mount namespaces, with an empty directory of its own; `test` must have the name under
/// which the test harness knows it.
///
/// Root unshares a thread. An ordinary user needs a user namespace first, which a process with threads cannot enter: the
/// test runs again, alone, in a process started by `unshare`.
pub(crate) fn isolated(test: &str, body: impl FnOnce(&Path) + Send + 'static) {
    if geteuid().is_root() || std::env::var_os(INSIDE).is_some() {
        let name = thread::current().name().map(str::to_owned).unwrap_or_default();
        thread::Builder::new().name(name).spawn(|| fresh(body)).unwrap().join().unwrap();
        return;
    }
    let me = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount"])
        .arg(me)
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(INSIDE, "1")
        .status()
        .expect("the program `unshare` (package util-linux) runs tests of the kernel's network without root");
    assert!(
        status.success(),
        "{test} failed in a user namespace; if namespaces are forbidden here, run as root or set sysctl \
         kernel.unprivileged_userns_clone=1 / kernel.apparmor_restrict_unprivileged_userns=0"
    );
}

fn fresh(body: impl FnOnce(&Path)) {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    // Nothing mounted here shows outside.
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    Socket::open().unwrap().run(&[link::up(link::By::Name("lo"))]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    mount(Some("tmpfs"), directory.path(), Some("tmpfs"), MsFlags::empty(), none).unwrap();
    body(directory.path());
    nix::mount::umount2(directory.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
}

/// A new namespace of that name in `directory`.
pub(crate) fn namespace(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    super::create(&path).unwrap();
    path
}
