//! Kuryr's processes in a world: controllers and one daemon per node.

use super::process::{Process, Program, executable, get};
use anyhow::{Context, bail, ensure};
use futures::future::select_all;
use kuryr_controller::PoolReport;
use kuryr_node::{attachments::Attachment, netns};
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

/// How long a process may take to be ready.
const READY: Duration = Duration::from_secs(60);

/// What the processes are started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder for logs, sockets and state.
    pub folder: PathBuf,
    /// `kuryr.toml`.
    pub config: PathBuf,
    /// The controller's kubeconfig.
    pub controller_kubeconfig: PathBuf,
    /// The daemons' kubeconfig.
    pub daemon_kubeconfig: PathBuf,
    /// An administrator's kubeconfig, for `kuryr audit`, `status` and `setup`.
    pub admin_kubeconfig: PathBuf,
    /// Environment of all of them, such as `OS_CLIENT_CONFIG_FILE`. Daemons do not get it: they hold no credentials.
    pub cloud_env: Vec<(String, String)>,
    /// What is logged.
    pub log: String,
}

/// Where a node's daemon runs.
#[derive(Clone, Debug)]
pub struct NodePlace {
    /// The node's name.
    pub name: String,
    /// Its network namespace; ours without one.
    pub netns: Option<PathBuf>,
    /// Where the daemon serves health and metrics: reachable from here.
    pub listen: SocketAddr,
}

/// Kuryr's processes.
pub struct Kuryr {
    settings: Settings,
    program: PathBuf,
    places: BTreeMap<String, NodePlace>,
    controllers: BTreeMap<usize, (Process, SocketAddr)>,
    daemons: BTreeMap<String, Process>,
    started: usize,
}

impl Kuryr {
    /// No process yet.
    ///
    /// # Errors
    /// The executable is missing.
    pub fn new(settings: Settings, places: Vec<NodePlace>) -> anyhow::Result<Self> {
        Ok(Self {
            program: executable("kuryr")?,
            settings,
            places: places.into_iter().map(|place| (place.name.clone(), place)).collect(),
            controllers: BTreeMap::new(),
            daemons: BTreeMap::new(),
            started: 0,
        })
    }

    /// There is one more node.
    pub fn add_place(&mut self, place: NodePlace) {
        self.places.insert(place.name.clone(), place);
    }

    /// What the processes are started with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Has processes use this configuration from their next start on; the file that was used until now stays as it is.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn use_config(&mut self, text: &str) -> anyhow::Result<()> {
        let file = self.settings.folder.join("kuryr-of-scenario.toml");
        fs::write(&file, text)?;
        self.settings.config = file;
        Ok(())
    }

    /// Has everything logged from the next start of a process on.
    pub fn log_everything(&mut self) {
        "trace".clone_into(&mut self.settings.log);
    }

    /// Starts one more controller and waits until its index is complete: it leads or stands by. Its number.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_controller(&mut self) -> anyhow::Result<usize> {
        let number = self.started;
        self.started += 1;
        let listen = free_address()?;
        let name = format!("controller-{number}");
        let log = self.log(&name);
        let args = vec![
            "controller".to_owned(),
            format!("--identity={name}"),
            format!("--listen={listen}"),
            format!("--kubeconfig={}", self.settings.controller_kubeconfig.display()),
        ];
        let mut process = self.start(&name, args, self.settings.cloud_env.clone(), None, &log)?;
        process.ready(&format!("http://{listen}/readyz"), READY).await?;
        self.controllers.insert(number, (process, listen));
        Ok(number)
    }

    /// SIGKILL for a controller.
    ///
    /// # Errors
    /// There is no such controller.
    pub async fn kill_controller(&mut self, number: usize) -> anyhow::Result<()> {
        self.controllers.remove(&number).context("no such controller")?.0.kill().await
    }

    /// SIGKILL for all controllers.
    ///
    /// # Errors
    /// One does not end.
    pub async fn kill_controllers(&mut self) -> anyhow::Result<()> {
        for controller in self.controllers() {
            self.kill_controller(controller).await?;
        }
        Ok(())
    }

    /// SIGTERM for a controller, and its end.
    ///
    /// # Errors
    /// There is no such controller, or it does not end.
    pub async fn stop_controller(&mut self, number: usize) -> anyhow::Result<()> {
        self.controllers.remove(&number).context("no such controller")?.0.stop().await
    }

    /// Waits until a controller ends by itself, and starts another one, as a Deployment would.
    ///
    /// # Errors
    /// There is none, or the new one does not start.
    pub async fn replace_ended_controller(&mut self) -> anyhow::Result<()> {
        ensure!(!self.controllers.is_empty(), "no controller runs");
        let ends = self
            .controllers
            .iter_mut()
            .map(|(number, (process, _))| Box::pin(async move { process.wait().await.map(|_| *number) }));
        let (ended, ..) = select_all(ends).await;
        self.controllers.remove(&ended?);
        self.start_controller().await.map(drop)
    }

    /// The metrics page of a controller.
    ///
    /// # Errors
    /// There is none.
    pub async fn controller_metrics(&self, number: usize) -> anyhow::Result<String> {
        let (_, listen) = self.controllers.get(&number).context("no such controller")?;
        Ok(get(&format!("http://{listen}/metrics")).await?.1)
    }

    /// Where the first controller serves that, if there is one.
    #[must_use]
    pub fn first_address(&self) -> Option<SocketAddr> {
        self.controllers.values().map(|(_, listen)| *listen).next()
    }

    /// Where a controller serves health, metrics and pools.
    #[must_use]
    pub fn controller_address(&self, number: usize) -> Option<SocketAddr> {
        self.controllers.get(&number).map(|(_, listen)| *listen)
    }

    /// What the pools of the active controller have; none while there is no active one, or if it has none.
    ///
    /// # Errors
    /// A controller does not answer.
    pub async fn pools(&self) -> anyhow::Result<Option<PoolReport>> {
        for (_, listen) in self.controllers.values() {
            if let (200, body) = get(&format!("http://{listen}/pools")).await? {
                return Ok(Some(serde_json::from_str(&body)?));
            }
        }
        Ok(None)
    }

    /// The metrics page of a node's daemon.
    ///
    /// # Errors
    /// There is none.
    pub async fn daemon_metrics(&self, node: &str) -> anyhow::Result<String> {
        let place = self.places.get(node).with_context(|| format!("no node {node}"))?;
        Ok(get(&format!("http://{}/metrics", place.listen)).await?.1)
    }

    /// Numbers of the controllers that were started and not ended.
    #[must_use]
    pub fn controllers(&self) -> Vec<usize> {
        self.controllers.keys().copied().collect()
    }

    /// Process id of a controller.
    #[must_use]
    pub fn controller_pid(&self, number: usize) -> Option<u32> {
        self.controllers.get(&number)?.0.pid()
    }

    /// Process id of a node's daemon.
    #[must_use]
    pub fn daemon_pid(&self, node: &str) -> Option<u32> {
        self.daemons.get(node)?.pid()
    }

    /// Starts a node's daemon and waits until pods can be attached.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_daemon(&mut self, node: &str) -> anyhow::Result<()> {
        self.begin_daemon(node).await?;
        self.daemon_ready(node).await
    }

    /// Starts a node's daemon and waits until it answers, be it that nothing else does.
    ///
    /// # Errors
    /// It does not start.
    pub async fn begin_daemon(&mut self, node: &str) -> anyhow::Result<()> {
        let place = self.places.get(node).with_context(|| format!("no node {node}"))?.clone();
        let name = format!("daemon-{node}");
        let log = self.log(&name);
        let args = vec![
            "daemon".to_owned(),
            format!("--node={node}"),
            format!("--socket={}", self.socket(node).display()),
            format!("--state-dir={}", self.state_dir(node).display()),
            format!("--listen={}", place.listen),
            format!("--kubeconfig={}", self.settings.daemon_kubeconfig.display()),
        ];
        let mut process = self.start(&name, args, Vec::new(), place.netns.as_deref(), &log)?;
        process.ready(&format!("http://{}/healthz", place.listen), READY).await?;
        self.daemons.insert(node.to_owned(), process);
        Ok(())
    }

    /// Waits until pods can be attached by a node's daemon.
    ///
    /// # Errors
    /// They cannot, in time.
    pub async fn daemon_ready(&mut self, node: &str) -> anyhow::Result<()> {
        let listen = self.places.get(node).with_context(|| format!("no node {node}"))?.listen;
        let daemon = self.daemons.get_mut(node).with_context(|| format!("no daemon on {node}"))?;
        daemon.ready(&format!("http://{listen}/readyz"), READY).await
    }

    /// SIGKILL for a node's daemon.
    ///
    /// # Errors
    /// There is none.
    pub async fn kill_daemon(&mut self, node: &str) -> anyhow::Result<()> {
        self.daemons.remove(node).with_context(|| format!("no daemon on {node}"))?.kill().await
    }

    /// The unix socket of a node's daemon.
    #[must_use]
    pub fn socket(&self, node: &str) -> PathBuf {
        self.settings.folder.join(node).join("cni.sock")
    }

    /// The state folder of a node's daemon.
    #[must_use]
    pub fn state_dir(&self, node: &str) -> PathBuf {
        self.settings.folder.join(node).join("state")
    }

    /// What a node's daemon remembers, read from its files: it need not run.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn attachments(&self, node: &str) -> anyhow::Result<Vec<Attachment>> {
        let folder = self.state_dir(node).join("attachments");
        let mut attachments = Vec::new();
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                // A file may go away under our eyes.
                if let Ok(text) = fs::read(&path) {
                    attachments.push(serde_json::from_slice(&text).with_context(|| path.display().to_string())?);
                }
            }
        }
        Ok(attachments)
    }

    /// Runs `kuryr audit` with the reports of these nodes, as it is at this moment. Whether it is clean, and what it says.
    ///
    /// # Errors
    /// It cannot be run.
    pub async fn audit(&self, nodes: &[String]) -> anyhow::Result<(bool, String)> {
        // Who asks asks again until it is clean: for what is still under way nothing is gained by waiting in there.
        let mut args = vec!["audit".to_owned(), "--settle=0".to_owned()];
        for node in nodes.iter().filter(|node| self.daemons.contains_key(*node)) {
            args.push(format!("--daemon-socket={}", self.socket(node).display()));
        }
        let (code, output) = self.run(args).await?;
        match code {
            Some(0) => Ok((true, output)),
            Some(1) => Ok((false, output)),
            _ => bail!("kuryr audit ended with {code:?}:\n{output}"),
        }
    }

    /// Runs a command of `kuryr` as an administrator; its exit code and output.
    ///
    /// # Errors
    /// It cannot be run.
    pub async fn run(&self, mut args: Vec<String>) -> anyhow::Result<(Option<i32>, String)> {
        args.push(format!("--kubeconfig={}", self.settings.admin_kubeconfig.display()));
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&args).envs(self.settings.cloud_env.iter().cloned()).env("KURYR_LOG", "warn");
        if self.settings.config.exists() {
            command.env("KURYR_CONFIG", &self.settings.config);
        }
        let output = command.output().await?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
    }

    /// Runs a command of `kuryr` as an administrator who has logged in on a node; its exit code and output. It is killed
    /// if the future is dropped.
    ///
    /// # Errors
    /// It cannot be run.
    pub async fn run_at(&self, node: &str, args: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
        let place = self.places.get(node).with_context(|| format!("no node {node}"))?;
        let mut command = tokio::process::Command::new(&self.program);
        command.args(args).arg(format!("--kubeconfig={}", self.settings.admin_kubeconfig.display()));
        command.envs(self.settings.cloud_env.iter().cloned()).env("KURYR_LOG", "warn");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        if self.settings.config.exists() {
            command.env("KURYR_CONFIG", &self.settings.config);
        }
        let runtime = tokio::runtime::Handle::current();
        let mut spawn = || {
            let _runtime = runtime.enter();
            command.spawn()
        };
        let child = match &place.netns {
            Some(path) => netns::run(path, spawn)?,
            None => spawn(),
        };
        let output = child?.wait_with_output().await?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
    }

    /// Runs a command of `kuryr` as somebody who has only what is on the node: no kubeconfig, no credentials, no settings.
    ///
    /// # Errors
    /// It cannot be run.
    pub async fn run_on_node(&self, args: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
        let output = tokio::process::Command::new(&self.program).args(args).env_clear().output().await?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
    }

    /// Stops all processes.
    ///
    /// # Errors
    /// One does not end.
    pub async fn stop_all(&mut self) -> anyhow::Result<()> {
        for (_, (process, _)) in std::mem::take(&mut self.controllers) {
            process.stop().await?;
        }
        for (_, process) in std::mem::take(&mut self.daemons) {
            process.stop().await?;
        }
        Ok(())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.settings.folder.join(format!("{name}.log"))
    }

    fn start(
        &self,
        name: &str,
        args: Vec<String>,
        mut env: Vec<(String, String)>,
        netns: Option<&Path>,
        log: &Path,
    ) -> anyhow::Result<Process> {
        env.push(("KURYR_CONFIG".to_owned(), self.settings.config.display().to_string()));
        env.push(("KURYR_LOG".to_owned(), self.settings.log.clone()));
        Process::start(&Program { name, path: &self.program, args, env, netns, log })
    }
}

/// A free address of this host.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?)
}
