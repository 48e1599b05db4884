//! The program `nft`, in the network namespace of the calling thread.

use super::script::TABLE;
use std::{io, process::Stdio, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::timeout,
};

/// How long `nft` may take. A transaction of thousands of rules takes a part of a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why `nft` has not done it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not installed.
    #[error("the program nft is missing: install nftables on the node, or in the daemon's image")]
    Missing(#[source] io::Error),
    /// It could not be run.
    #[error("cannot run the program nft")]
    Run(#[source] io::Error),
    /// It did not end.
    #[error("the program nft has not ended after {PATIENCE:?}")]
    Silent,
    /// The kernel or `nft` itself refused.
    #[error("nft refused: {words}{}", hint(.words))]
    Refused {
        /// Its words.
        words: String,
    },
    /// Its answer could not be read.
    #[error("cannot understand how nft lists the table {TABLE}")]
    Listing(#[from] serde_json::Error),
}

/// What to do about a refusal, where that is known.
fn hint(words: &str) -> &'static str {
    if words.contains("Operation not permitted") {
        "; the daemon needs the capability CAP_NET_ADMIN"
    } else if words.contains("Could not process rule") {
        "; node ports need a kernel with nftables and NAT for the family inet (5.2 or later), and nft 1.0.1 or later"
    } else {
        ""
    }
}

/// Carries out a script, as one transaction: all of it or nothing.
///
/// # Errors
/// It was not carried out.
pub async fn run(script: &str) -> Result<(), Error> {
    let mut child = start(&["-f", "-"], Stdio::piped())?;
    let input = child.stdin.take();
    let write = async {
        // Dropped at the end of this, so that nft sees the end of its input.
        if let Some(mut input) = input {
            // A broken pipe is the end of nft, which says why.
            let _ = input.write_all(script.as_bytes()).await;
        }
    };
    let (output, ()) =
        timeout(PATIENCE, async { tokio::join!(child.wait_with_output(), write) }).await.map_err(|_| Error::Silent)?;
    let output = output.map_err(Error::Run)?;
    if output.status.success() { Ok(()) } else { Err(refused(&output.stderr)) }
}

/// What is in our table, as JSON; `None` if it is not there.
///
/// # Errors
/// It could not be asked for.
pub async fn list() -> Result<Option<Vec<u8>>, Error> {
    let child = start(&["-j", "-n", "list", "table", "inet", TABLE], Stdio::null())?;
    let output = timeout(PATIENCE, child.wait_with_output()).await.map_err(|_| Error::Silent)?.map_err(Error::Run)?;
    if output.status.success() {
        return Ok(Some(output.stdout));
    }
    match refused(&output.stderr) {
        Error::Refused { words } if words.contains("No such file or directory") => Ok(None),
        error => Err(error),
    }
}

fn start(args: &[&str], stdin: Stdio) -> Result<Child, Error> {
    let child = Command::new("nft")
        .args(args)
        // Administrators' directories are not on everybody's path.
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
        .env("LC_ALL", "C")
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    child.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::Missing(error),
        _ => Error::Run(error),
    })
}

/// The first thing that was said, without the picture of the script.
fn refused(stderr: &[u8]) -> Error {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().find(|line| line.contains("Error:")).or_else(|| text.lines().next());
    Error::Refused { words: line.unwrap_or("no reason was given").trim().to_owned() }
}
