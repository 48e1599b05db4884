//! The unix socket that only root can use.

use axum::{
    extract::{ConnectInfo, Request, connect_info::Connected},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
    serve::IncomingStream,
};
use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};
use tokio::net::UnixListener;

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder, or something in the way.
    #[error("cannot make the socket {}; check the socket setting and that its folder is root's", .path.display())]
    Make {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Something else than a socket is there.
    #[error("{} is in the way of the daemon's socket and is none itself; remove it or set another socket", .0.display())]
    Occupied(PathBuf),
    /// Somebody listens.
    #[error("another daemon listens on {}; stop it first", .0.display())]
    InUse(PathBuf),
}

/// Listens on a unix socket that only this user can connect to. Its folder is made if need be, and a socket on which
/// nobody listens any more is replaced.
///
/// # Errors
/// The socket cannot be made, or is in use.
pub fn bind(path: &Path) -> Result<UnixListener, Error> {
    let error = |source| Error::Make { path: path.to_owned(), source };
    if let Some(folder) = path.parent()
        && !folder.exists()
    {
        fs::create_dir_all(folder).map_err(error)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(error)?;
    }
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => return Err(Error::Occupied(path.to_owned())),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => return Err(Error::InUse(path.to_owned())),
        Ok(_) => fs::remove_file(path).map_err(error)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(error)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(error)?;
    Ok(listener)
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self { uid: stream.io().peer_cred().ok().map(|credentials| credentials.uid()) }
    }
}

/// Lets root pass, and the user that the daemon runs as; the socket's permissions are not the only guard.
pub async fn only_root(ConnectInfo(peer): ConnectInfo<Peer>, request: Request, next: Next) -> Response {
    if allowed(peer.uid, nix::unistd::geteuid().as_raw()) {
        return next.run(request).await;
    }
    tracing::warn!(uid = peer.uid, "refused a request over the daemon's socket");
    (StatusCode::FORBIDDEN, "only root may talk to the kuryr daemon\n").into_response()
}

fn allowed(peer: Option<u32>, own: u32) -> bool {
    peer.is_some_and(|peer| peer == 0 || peer == own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_made_for_one_user_and_a_stale_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/cni.sock");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let listener = bind(&path).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(matches!(bind(&path), Err(Error::InUse(_))));
        drop(listener);
        assert!(path.exists(), "a killed daemon leaves its socket");
        bind(&path).unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(bind(&file), Err(Error::Occupied(_))));
        assert!(matches!(bind(&file.join("x")), Err(Error::Make { .. })));
    }

    #[test]
    fn only_root_and_the_daemons_own_user_may_pass() {
        assert!(allowed(Some(0), 1000) && allowed(Some(1000), 1000));
        assert!(!allowed(Some(1001), 1000) && !allowed(Some(1001), 0) && !allowed(None, 0));
    }
}
