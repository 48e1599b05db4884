//! Entering the testbed's own namespaces, with or without root.

use super::Error;
use kuryr_node::netlink::{Socket, link};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};
use std::{fs, io, path::Path};
use tempfile::TempDir;

/// The testbed's place inside its namespaces: a directory for namespace files that nobody else sees.
#[derive(Debug)]
pub struct Inside {
    directory: TempDir,
}

impl Inside {
    /// The directory, empty at first and in memory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // The directory is removed after this; it must not be busy.
        let _ = umount2(self.directory.path(), MntFlags::MNT_DETACH);
    }
}

/// Moves the calling thread, and all threads that it will start, into new network and mount namespaces, as an ordinary
/// user into a new user namespace too. Must be called first thing in `main`: a process with several threads cannot enter
/// a user namespace.
///
/// Sockets stay where they were made. One that is to be reached from outside is bound with `std::net` before this, and
/// given to tokio (`TcpListener::from_std`) when its runtime runs; one that pods and nodes are to reach is bound after it.
///
/// # Errors
/// The kernel forbids it: the sentence names the setting that does.
pub fn enter() -> Result<Inside, Error> {
    let (user, group) = (geteuid(), getegid());
    let mut flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    if !user.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags).map_err(|errno| forbidden(errno, user.is_root()))?;
    if !user.is_root() {
        // Without this the kernel lets nobody without privileges map groups.
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/uid_map", &format!("0 {user} 1"))?;
        write("/proc/self/gid_map", &format!("0 {group} 1"))?;
    }
    prepare()
}

/// What is left to do inside.
fn prepare() -> Result<Inside, Error> {
    let failed = |doing: &str| {
        let doing = doing.to_owned();
        move |errno: Errno| Error::Prepare { doing, source: errno.into() }
    };
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(failed("make mounts private"))?;
    let directory = tempfile::Builder::new()
        .prefix("kuryr-testbed-")
        .tempdir()
        .map_err(|source| Error::Prepare { doing: "make a directory for namespaces".into(), source })?;
    mount(Some("tmpfs"), directory.path(), Some("tmpfs"), MsFlags::empty(), Some("mode=0700"))
        .map_err(failed("mount a directory for namespaces"))?;
    Socket::open()?.run(&[link::up(link::By::Name("lo"))])?;
    Ok(Inside { directory })
}

fn write(path: &str, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::Prepare { doing: format!("write {path}"), source })
}

fn forbidden(errno: Errno, root: bool) -> Error {
    let is = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    let hint = if root {
        "this root may not make namespaces (a container without CAP_SYS_ADMIN?)".to_owned()
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "run as root or set sysctl kernel.unprivileged_userns_clone=1".to_owned()
    } else if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "run as root or set sysctl kernel.apparmor_restrict_unprivileged_userns=0".to_owned()
    } else if is("/proc/sys/user/max_user_namespaces", "0") {
        "run as root or set sysctl user.max_user_namespaces to more than 0".to_owned()
    } else if errno == Errno::EINVAL {
        "the process has several threads already".to_owned()
    } else {
        "run as root".to_owned()
    };
    Error::Forbidden(format!("cannot make network namespaces: {}; {hint}", io::Error::from(errno)))
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use std::{process::Command, thread};

    const INSIDE: &str = "KURYR_TEST_INSIDE";

    /// Runs a test, by the name under which the harness knows it, inside. Root unshares a thread; an ordinary user needs a
    /// process without threads, which `unshare` starts.
    pub(in crate::dataplane) fn isolated(test: &str, body: impl FnOnce(&Inside) + Send + 'static) {
        let root = geteuid().is_root();
        if root || std::env::var_os(INSIDE).is_some() {
            let name = thread::current().name().map(str::to_owned).unwrap_or_default();
            let inside = || body(&enter().unwrap());
            thread::Builder::new().name(name).spawn(inside).unwrap().join().unwrap();
            return;
        }
        let status = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--mount"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(INSIDE, "1")
            .status()
            .expect("the program `unshare` (package util-linux) runs tests of the data plane without root");
        assert!(status.success(), "{test} failed in a user namespace");
    }
}
