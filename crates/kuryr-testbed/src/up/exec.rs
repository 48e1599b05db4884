//! Runs a command of this machine in the network of a pod of the world that `up` has started, or where its controller runs.
//!
//! The namespaces' files are mounted where only the testbed sees them, so they are reached through the testbed's process.

use super::files::{CLOUDS, CONFIG, FOLDER, KUBECONFIG, Running};
use anyhow::{Context, bail, ensure};
use kuryr_node::attachments::Attachment;
use nix::sched::{CloneFlags, setns};
use std::{
    fs::{self, File},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Folder that `up` named
    #[arg(long, env = FOLDER, value_name = "PATH")]
    pub folder: PathBuf,

    /// Namespace of the pod
    #[arg(short, long, default_value = "default")]
    pub namespace: String,

    /// The pod
    #[arg(required_unless_present = "controller")]
    pub pod: Option<String>,

    /// Where the controller runs, in place of a pod, with its configuration and credentials: as for kuryr pools
    #[arg(long, conflicts_with = "pod")]
    pub controller: bool,

    /// The command and its arguments
    #[arg(required = true, last = true)]
    pub command: Vec<String>,
}

/// Becomes the command. Called first thing in `main`, while the process has one thread.
///
/// # Errors
/// There is no such world, pod or command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let running = Running::read(&args.folder)?;
    let process = PathBuf::from(format!("/proc/{}", running.pid));
    ensure!(process.exists(), "the world of {} has ended; start one with `kuryr-testbed up`", args.folder.display());
    let netns = match &args.pod {
        None => process.join("ns/net"),
        Some(pod) => match find(&running.folder, &args.namespace, pod)? {
            // An absolute path would forget what it is joined to.
            Some(netns) => process.join("root").join(netns.strip_prefix("/").unwrap_or(&netns)),
            None => {
                bail!("pod {}/{pod} is plugged on no node; `kubectl get kuryrports -A` tells more", args.namespace)
            }
        },
    };
    let refused = || format!("this user may not enter the world of process {}", running.pid);
    join_user_namespace(&process).with_context(refused)?;
    let file = File::open(&netns).with_context(refused)?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(refused)?;
    let (program, rest) = args.command.split_first().context("no command")?;
    let mut command = Command::new(program);
    if args.controller {
        let at = |name| running.folder.join(name);
        command
            .env("KUBECONFIG", at(KUBECONFIG))
            .env("OS_CLIENT_CONFIG_FILE", at(CLOUDS))
            .env("KURYR_CONFIG", at(CONFIG));
    }
    Err(command.args(rest).exec()).with_context(|| format!("cannot run {program}"))
}

/// An ordinary user's world is in a user namespace of its own.
fn join_user_namespace(process: &Path) -> anyhow::Result<()> {
    let (ours, theirs) = (Path::new("/proc/self/ns/user"), process.join("ns/user"));
    if fs::metadata(ours)?.ino() != fs::metadata(&theirs)?.ino() {
        setns(File::open(&theirs)?, CloneFlags::CLONE_NEWUSER)?;
    }
    Ok(())
}

/// The network namespace of a pod, as the daemon of its node remembers it.
fn find(folder: &Path, namespace: &str, pod: &str) -> anyhow::Result<Option<PathBuf>> {
    for node in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let Ok(attachments) = fs::read_dir(node?.path().join("state/attachments")) else { continue };
        for entry in attachments {
            let path = entry?.path();
            // Some are being written or removed under our eyes.
            let Some(text) = fs::read(&path).ok().filter(|_| path.extension().is_some_and(|end| end == "json")) else {
                continue;
            };
            let attachment: Attachment = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
            if attachment.pod_namespace == namespace && attachment.pod_name == pod {
                return Ok(Some(attachment.netns));
            }
        }
    }
    Ok(None)
}
