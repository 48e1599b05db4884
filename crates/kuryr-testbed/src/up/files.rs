//! The files by which clients find the world, and the words that tell a person of them.

use crate::{
    cloud::Server,
    kubernetes::{ServerHandle, kubeconfig},
    world::{World, process::executable},
};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// How to reach the API server.
pub(super) const KUBECONFIG: &str = "kubeconfig";
/// How to reach the cloud.
pub(super) const CLOUDS: &str = "clouds.yaml";
/// The configuration of the world's Kuryr, in the world's own folder.
pub(super) const CONFIG: &str = "kuryr.toml";
/// The variables that name both, for a shell.
const ENV: &str = "env";
/// Where the running world is.
const WORLD: &str = "world.json";

/// The variable that names the folder.
pub(super) const FOLDER: &str = "KURYR_TESTBED";

/// Where a running world is, for `kuryr-testbed exec`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Running {
    /// The process whose namespaces it is in.
    pub(super) pid: u32,
    /// Its folder: configurations, state, logs.
    pub(super) folder: PathBuf,
}

impl Running {
    /// The world whose files are in this folder.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(WORLD);
        let text = fs::read(&path).with_context(|| {
            format!("no world has its files in {}: is `kuryr-testbed up` running?", folder.display())
        })?;
        serde_json::from_slice(&text).with_context(|| format!("{} is not what `up` wrote", path.display()))
    }
}

/// The files in their folder. Dropping it removes them.
pub(super) struct Files {
    folder: PathBuf,
    logs: PathBuf,
    _own: Option<TempDir>,
}

impl Files {
    pub(super) fn write(
        folder: Option<&Path>,
        cloud: &Server,
        kubernetes: &ServerHandle,
        world: &Path,
    ) -> anyhow::Result<Self> {
        let (folder, own) = match folder {
            Some(folder) => {
                fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
                (folder.canonicalize()?, None)
            }
            None => {
                let own = tempfile::Builder::new().prefix("kuryr-up-").tempdir()?;
                (own.path().to_owned(), Some(own))
            }
        };
        let files = Self { folder, logs: world.to_owned(), _own: own };
        let running = Running { pid: std::process::id(), folder: world.to_owned() };
        files.put(KUBECONFIG, &kubeconfig(&kubernetes.url()))?;
        files.put(CLOUDS, &cloud.clouds_yaml())?;
        files.put(WORLD, &serde_json::to_string(&running)?)?;
        files.put(ENV, &files.exports())?;
        Ok(files)
    }

    fn put(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Lines for a shell.
    fn exports(&self) -> String {
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
        format!(
            "export KUBECONFIG={}\nexport OS_CLIENT_CONFIG_FILE={} OS_CLOUD=kuryr\nexport KURYR_CONFIG={}\nexport {FOLDER}={}\n",
            quoted(&self.folder.join(KUBECONFIG)),
            quoted(&self.folder.join(CLOUDS)),
            quoted(&self.logs.join(CONFIG)),
            quoted(&self.folder),
        )
    }

    /// What a person must know.
    pub(super) fn greeting(&self, cloud: &Server, kubernetes: &ServerHandle, world: &World) -> String {
        let testbed = std::env::current_exe().unwrap_or_else(|_| "kuryr-testbed".into());
        let kuryr = executable("kuryr").unwrap_or_else(|_| "kuryr".into());
        let exports: String = self.exports().lines().map(|line| format!("  {line}\n")).collect();
        format!(
            "
Up: {nodes} nodes. Ctrl-C ends it all.

  Kubernetes  {kubernetes}
  Keystone    {keystone} (user {user}, project {project})
  logs        {logs}/*.log
  of pods     {logs}/node*/log/*.log

In another shell, once:

{exports}
Then, for instance:

  kubectl run one --image=any     # images are not run: a pod is its network, with --command one of this machine's programs
  kubectl run two --image=any
  kubectl get pods,kuryrports -o wide
  openstack port list --long      # the ports under their pods' names; kuryr-pool is a spare one
  {testbed} exec one -- ping -c 3 ADDRESS
  {kuryr} status
  {kuryr} audit
  {testbed} exec --controller -- {kuryr} pools --controller {controller}
  kubectl delete pod one two
",
            nodes = world.nodes.len(),
            controller = world.kuryr.first_address().map_or_else(|| "ADDRESS:PORT".to_owned(), |it| it.to_string()),
            kubernetes = kubernetes.url(),
            keystone = cloud.auth_url(),
            user = cloud.user(),
            project = cloud.project(),
            logs = self.logs.display(),
            testbed = testbed.display(),
            kuryr = kuryr.display(),
        )
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for name in [KUBECONFIG, CLOUDS, ENV, WORLD] {
            // What somebody has removed is removed.
            let _ = fs::remove_file(self.folder.join(name));
        }
    }
}
