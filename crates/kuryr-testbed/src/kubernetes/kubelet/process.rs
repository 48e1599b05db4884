//! Containers are plain processes in the pod's network namespace, each with a thread that starts it and waits for it.
//!
//! That thread is what containerd's shim is: it outlives the kubelet that asked for it, so that a kubelet that is
//! started anew finds the container still there. It ends with the container.

use std::{
    collections::HashMap,
    fs::OpenOptions,
    io,
    os::unix::{
        fs::MetadataExt as _,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::sync::{oneshot, watch};

use super::netns::{self, NetnsError};

/// Why a container could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Its namespace cannot be entered.
    #[error("cannot enter the pod's network namespace")]
    Netns(#[source] NetnsError),
    /// Its log cannot be written.
    #[error("cannot open the log {}", path.display())]
    Log {
        /// The log file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its program cannot be executed.
    #[error("cannot execute {program:?}")]
    Execute {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no thread for it.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// What to run and where.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// Program and arguments; not empty.
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// `None`: the node's own namespace.
    pub(crate) netns: Option<PathBuf>,
    pub(crate) log: PathBuf,
}

/// A container that was started.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    exit: watch::Receiver<Option<i32>>,
}

/// The containers of this program's kubelets, by container id.
static RUNNING: LazyLock<Mutex<HashMap<String, Process>>> = LazyLock::new(Mutex::default);

fn running() -> MutexGuard<'static, HashMap<String, Process>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The container of a sandbox, also if a former kubelet started it.
pub(crate) fn find(container_id: &str) -> Option<Process> {
    running().get(container_id).cloned()
}

/// Forgets a container that has ended.
pub(crate) fn forget(container_id: &str) {
    running().remove(container_id);
}

/// Starts a container.
pub(crate) async fn start(container_id: &str, program: Program) -> Result<Process, ProcessError> {
    let (started, result) = oneshot::channel();
    let (exit_tx, exit) = watch::channel(None);
    let key = container_id.to_owned();
    let thread = std::thread::Builder::new().name("shim".into()).spawn(move || {
        let mut child = match spawn(&program) {
            Ok(child) => child,
            Err(error) => {
                // Nobody waits any more if the kubelet was stopped just now.
                let _ = started.send(Err(error));
                return;
            }
        };
        let process = Process { pid: i32::try_from(child.id()).unwrap_or_default(), exit };
        // Registered here, so that a caller that was stopped meanwhile leaves nothing unknown behind.
        running().insert(key, process.clone());
        let _ = started.send(Ok(process));
        let code =
            child.wait().ok().and_then(|status| status.code().or_else(|| status.signal().map(|signal| 128 + signal)));
        exit_tx.send_replace(Some(code.unwrap_or(255)));
    });
    thread.map_err(ProcessError::Thread)?;
    let ended = || ProcessError::Thread(io::Error::other("the thread ended"));
    result.await.map_err(|_| ended())?
}

fn spawn(program: &Program) -> Result<std::process::Child, ProcessError> {
    let log = |source| ProcessError::Log { path: program.log.clone(), source };
    if let Some(folder) = program.log.parent() {
        std::fs::create_dir_all(folder).map_err(log)?;
    }
    let out = OpenOptions::new().create(true).append(true).open(&program.log).map_err(log)?;
    let err = out.try_clone().map_err(log)?;
    if let Some(netns) = &program.netns {
        netns::enter(netns).map_err(ProcessError::Netns)?;
    }
    let (name, arguments) = program.argv.split_first().map_or(("", &[][..]), |(name, rest)| (name.as_str(), rest));
    Command::new(name)
        .args(arguments)
        .envs(program.env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0)
        .spawn()
        .map_err(|source| ProcessError::Execute { program: name.to_owned(), source })
}

/// Kills a container that a program before this one started, if it is still in its namespace.
pub(crate) fn kill_stray(pid: i32, netns: &Path) {
    let inode = |path: &Path| std::fs::metadata(path).map(|found| found.ino()).ok();
    let own = inode(netns);
    if own.is_some() && inode(Path::new(&format!("/proc/{pid}/ns/net"))) == own {
        // It may have ended since.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

impl Process {
    /// Waits for the end; the exit code, or 128 and the signal.
    pub(crate) async fn ended(&self) -> i32 {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(code) => code.unwrap_or(255),
            Err(_) => 255,
        }
    }

    /// Sends a signal to the container's process group.
    pub(crate) fn signal(&self, signal: Signal) {
        // It may have ended already.
        let _ = killpg(Pid::from_raw(self.pid), signal);
    }
}
