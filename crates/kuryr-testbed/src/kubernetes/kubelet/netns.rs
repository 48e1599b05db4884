//! Network namespaces with a name: a file that one is mounted on.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkFlags, LinkMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{NSFS_MAGIC, statfs},
};
use tokio::sync::oneshot;

/// What can go wrong with a namespace.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the network namespace {}", path.display())]
pub struct NetnsError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl NetnsError {
    fn new(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { action, path: path.to_owned(), source: source.into() }
    }
}

/// Makes a namespace with its loopback up and names it by a file. The guard is held until that is done, even if the
/// caller does not wait.
pub(crate) async fn create(path: &Path, guard: impl Send + 'static) -> Result<(), NetnsError> {
    let (done, result) = oneshot::channel();
    let file = path.to_owned();
    // A thread of its own: the namespace belongs to the thread that unshares, and ends with it unless mounted.
    let thread = std::thread::Builder::new().name("netns".into()).spawn(move || {
        // The caller may have been cancelled; then nobody wants the result.
        let _ = done.send(create_here(&file));
        drop(guard);
    });
    thread.map_err(|error| NetnsError::new("start a thread for", path, error))?;
    result.await.unwrap_or_else(|_| Err(NetnsError::new("create", path, io::Error::other("the thread ended"))))
}

fn create_here(path: &Path) -> Result<(), NetnsError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| NetnsError::new("create the folder of", path, error))?;
    }
    File::create_new(path).map_err(|error| NetnsError::new("create the file of", path, error))?;
    let made = unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|error| NetnsError::new("unshare", path, error))
        .and_then(|()| loopback_up().map_err(|error| NetnsError::new("bring up the loopback of", path, error)))
        .and_then(|()| {
            let none: Option<&str> = None;
            mount(Some("/proc/thread-self/ns/net"), path, none, MsFlags::MS_BIND, none)
                .map_err(|error| NetnsError::new("mount", path, error))
        });
    if made.is_err() {
        // The error at hand says more than one about the file.
        let _ = fs::remove_file(path);
    }
    made
}

/// Brings up `lo` in the namespace of this thread. It is always the first link.
fn loopback_up() -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut link = LinkMessage::default();
    link.header.index = 1;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK;
    header.sequence_number = 1;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(RouteNetlinkMessage::SetLink(link)));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}

/// Whether a namespace is mounted on the file.
pub(crate) fn exists(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}

/// Unmounts a namespace and removes its file; absent is fine.
pub(crate) fn remove(path: &Path) -> Result<(), NetnsError> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // Not mounted, or not there.
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(error) => return Err(NetnsError::new("unmount", path, error)),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(NetnsError::new("remove the file of", path, error))
        }
        _ => Ok(()),
    }
}

/// Moves this thread into a namespace.
pub(crate) fn enter(path: &Path) -> Result<(), NetnsError> {
    let file = File::open(path).map_err(|error| NetnsError::new("open", path, error))?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|error| NetnsError::new("enter", path, error))
}
