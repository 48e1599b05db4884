//! The wish of a person, or of what has started this program, that it ends.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for the first SIGINT (Ctrl-C), SIGTERM or SIGHUP. From the call on, they end nothing by themselves.
///
/// # Errors
/// The runtime has no signals.
pub(crate) fn interrupted() -> std::io::Result<impl Future<Output = ()>> {
    let mut int = signal(SignalKind::interrupt())?;
    let mut term = signal(SignalKind::terminate())?;
    let mut hup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hup.recv() => {}
        }
    })
}
