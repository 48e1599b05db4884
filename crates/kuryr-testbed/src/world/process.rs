//! Kuryr's own programs as child processes, so that they can be killed like any other.

use anyhow::{Context, bail};
use kuryr_node::netns;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// How long a program may take to end after it was asked to.
const STOP: Duration = Duration::from_secs(30);

/// A running program. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// How to start a program.
pub struct Program<'a> {
    /// What it is called in logs and errors.
    pub name: &'a str,
    /// The executable.
    pub path: &'a Path,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, besides ours.
    pub env: Vec<(String, String)>,
    /// The network namespace that it runs in; ours without one.
    pub netns: Option<&'a Path>,
    /// Its output is added to this file.
    pub log: &'a Path,
}

impl Process {
    /// Starts a program.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: &Program<'_>) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(program.log)?;
        let mut command = Command::new(program.path);
        command
            .args(&program.args)
            .envs(program.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true);
        let runtime = tokio::runtime::Handle::current();
        let mut spawn = || {
            let _runtime = runtime.enter();
            command.spawn()
        };
        let child = match program.netns {
            Some(path) => netns::run(path, spawn)?,
            None => spawn(),
        };
        let child = child.with_context(|| format!("cannot start {}", program.path.display()))?;
        Ok(Self { name: program.name.to_owned(), child, log: program.log.to_owned() })
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL: it learns nothing of it.
    ///
    /// # Errors
    /// It cannot be killed.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// SIGTERM, and the time to end.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        }
        if timeout(STOP, self.child.wait()).await.is_err() {
            bail!("{} did not end within {STOP:?}; its log: {}", self.name, self.log.display());
        }
        Ok(())
    }

    /// Waits until it has ended; its exit code.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn wait(&mut self) -> anyhow::Result<Option<i32>> {
        Ok(self.child.wait().await?.code())
    }

    /// Waits until its health endpoint says that it is ready.
    ///
    /// # Errors
    /// It ends or is not ready in time: then with the end of its log.
    pub async fn ready(&mut self, url: &str, within: Duration) -> anyhow::Result<()> {
        let probe = async {
            loop {
                if self.ended() {
                    bail!("{} ended:\n{}", self.name, tail(&self.log));
                }
                if http_ok(url).await {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match timeout(within, probe).await {
            Ok(result) => result,
            Err(_) => bail!("{} was not ready within {within:?}:\n{}", self.name, tail(&self.log)),
        }
    }
}

/// Whether a GET is answered with 200. The health endpoints are plain HTTP/1.1.
async fn http_ok(url: &str) -> bool {
    get(url).await.is_ok_and(|(status, _)| status == 200)
}

/// Status and body of a GET.
///
/// # Errors
/// There is no answer.
pub async fn get(url: &str) -> anyhow::Result<(u16, String)> {
    use http_body_util::BodyExt;
    let uri: http::Uri = url.parse()?;
    let authority = uri.authority().context("no host in the URL")?.as_str().to_owned();
    let stream = tokio::net::TcpStream::connect(&authority).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let request =
        http::Request::get(path).header("host", authority).body(http_body_util::Empty::<bytes::Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// The last lines of a log.
#[must_use]
pub fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// Where one of Kuryr's executables is: `KURYR_BIN` or `KURYR_CNI`, else beside this program (or one folder up, for tests).
///
/// # Errors
/// It is missing.
pub fn executable(name: &str) -> anyhow::Result<PathBuf> {
    let variable = if name == "kuryr" { "KURYR_BIN" } else { "KURYR_CNI" };
    let named = std::env::var_os(variable).map(PathBuf::from);
    let own = std::env::current_exe()?;
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    let places: Vec<PathBuf> = named.into_iter().chain(beside).collect();
    let found = places.iter().find(|path| path.is_file()).cloned();
    found.with_context(|| {
        format!("there is no {name} at {places:?}; build it with `cargo build --workspace`, or set {variable}")
    })
}
