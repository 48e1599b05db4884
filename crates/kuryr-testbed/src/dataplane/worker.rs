//! The thread that lives in a node's namespace and does there what the agent says.

use super::{Error, script};
use kuryr_node::{
    netlink::{Request, Socket, monitor::Subscription, sysctl},
    netns::Namespace,
};
use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};
use tokio::sync::oneshot;

/// One piece of work: rules first, then addresses or routes.
#[derive(Debug, Default)]
pub(super) struct Job {
    /// For `nft`; empty for nothing.
    pub(super) script: String,
    /// For the kernel, in order.
    pub(super) requests: Vec<Request>,
}

/// A worker. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    node: String,
    jobs: mpsc::Sender<(Job, oneshot::Sender<Result<(), Error>>)>,
}

impl Worker {
    /// Starts the worker of a node, with the table of rules made and a subscription to its link events; without a
    /// namespace, that of the core, which is the calling thread's.
    pub(super) fn start(node: &str, netns: Option<&Path>) -> Result<(Self, Subscription), Error> {
        let (jobs, work) = mpsc::channel::<(Job, oneshot::Sender<Result<(), Error>>)>();
        let (ready, started) = mpsc::channel();
        let namespace = netns.map(Namespace::open).transpose()?;
        let name = node.to_owned();
        let body = move || {
            let begin = || -> Result<(Socket, Subscription), Error> {
                if let Some(namespace) = &namespace {
                    namespace.enter()?;
                    nft(&name, &script::initial())?;
                    // A connection that nobody saw begin must not be taken for a new one in the other direction.
                    sysctl::set("net/netfilter/nf_conntrack_tcp_loose", "0")?;
                } else {
                    nft(&name, &script::initial_core())?;
                }
                Ok((Socket::open()?, Subscription::open()?))
            };
            let mut socket = match begin() {
                Ok((socket, subscription)) => {
                    let _ = ready.send(Ok(subscription));
                    socket
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            for (job, done) in work {
                // The agent may have been dropped.
                let _ = done.send(perform(&name, &mut socket, &job));
            }
        };
        let prepare = |source| Error::Prepare { doing: format!("start the worker of node {node}"), source };
        thread::Builder::new().name(format!("dataplane-{node}")).spawn(body).map_err(prepare)?;
        let subscription = started.recv().map_err(|_| Error::Ended(node.to_owned()))??;
        Ok((Self { node: node.to_owned(), jobs }, subscription))
    }

    /// Does a job.
    pub(super) async fn perform(&self, job: Job) -> Result<(), Error> {
        let (done, finished) = oneshot::channel();
        let ended = || Error::Ended(self.node.clone());
        self.jobs.send((job, done)).map_err(|_| ended())?;
        finished.await.map_err(|_| ended())?
    }
}

fn perform(node: &str, socket: &mut Socket, job: &Job) -> Result<(), Error> {
    if !job.script.is_empty() {
        nft(node, &job.script)?;
    }
    let mut first = Ok(());
    for outcome in socket.run_each(&job.requests)? {
        match outcome {
            // A link that went takes its routes along.
            Err(error) if !kuryr_node::netlink::link::absent(&error) && !gone(&error) => first = first.and(Err(error)),
            _ => {}
        }
    }
    Ok(first?)
}

/// The kernel's word for a route that is not there.
fn gone(error: &kuryr_node::netlink::Error) -> bool {
    error.errno() == Some(nix::errno::Errno::ESRCH)
}

/// Has `nft` do a script, as one transaction, in the calling thread's namespace.
pub(super) fn nft(node: &str, script: &str) -> Result<(), Error> {
    let failed = |source| Error::Prepare { doing: "run nft".into(), source };
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        // Administrators' directories are not on everybody's path.
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(
            |error| if error.kind() == std::io::ErrorKind::NotFound { Error::NoNft(error) } else { failed(error) },
        )?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Nft { node: node.to_owned(), reason })
}
