//! Where the real world is, from the command line.

use crate::world::{RealConfig, Settings};
use anyhow::Context;
use std::path::PathBuf;

/// Where the parts of the real world are; `e2e/run` gives all of them.
#[derive(clap::Args, Clone, Debug)]
pub struct RealArgs {
    /// Run in the real world that `e2e/` has started on this machine
    #[arg(long)]
    pub real: bool,
    /// Folder for the logs, sockets and state of Kuryr's processes
    #[arg(long, value_name = "DIR", required_if_eq("real", "true"))]
    folder: Option<PathBuf>,
    /// Kuryr's configuration
    #[arg(long, value_name = "FILE", required_if_eq("real", "true"))]
    kuryr_config: Option<PathBuf>,
    /// An administrator's kubeconfig
    #[arg(long, value_name = "FILE", required_if_eq("real", "true"))]
    kubeconfig: Option<PathBuf>,
    /// The controller's kubeconfig
    #[arg(long, value_name = "FILE", required_if_eq("real", "true"))]
    controller_kubeconfig: Option<PathBuf>,
    /// The daemon's kubeconfig
    #[arg(long, value_name = "FILE", required_if_eq("real", "true"))]
    daemon_kubeconfig: Option<PathBuf>,
    /// The clouds.yaml
    #[arg(long, value_name = "FILE", required_if_eq("real", "true"))]
    clouds_file: Option<PathBuf>,
    /// The cloud in it
    #[arg(long, value_name = "NAME", default_value = "kuryr")]
    cloud: String,
    /// The folder of the scripts that have started it all
    #[arg(long, value_name = "DIR", default_value = "e2e")]
    scripts: PathBuf,
    /// The node
    #[arg(long, value_name = "NAME", default_value = "node0")]
    node: String,
    /// The unix socket of its OVSDB server
    #[arg(long, value_name = "PATH", default_value = "/run/openvswitch/db.sock")]
    ovsdb_socket: PathBuf,
}

impl RealArgs {
    /// As a world is configured.
    ///
    /// # Errors
    /// Something is missing.
    pub fn config(self) -> anyhow::Result<RealConfig> {
        let clouds_file = self.clouds_file.context("--clouds-file")?;
        let settings = Settings {
            folder: self.folder.context("--folder")?,
            config: self.kuryr_config.context("--kuryr-config")?,
            controller_kubeconfig: self.controller_kubeconfig.context("--controller-kubeconfig")?,
            daemon_kubeconfig: self.daemon_kubeconfig.context("--daemon-kubeconfig")?,
            admin_kubeconfig: self.kubeconfig.context("--kubeconfig")?,
            cloud_env: vec![("OS_CLIENT_CONFIG_FILE".to_owned(), clouds_file.display().to_string())],
            log: "info".to_owned(),
        };
        Ok(RealConfig {
            settings,
            cloud: self.cloud,
            clouds_file,
            scripts: self.scripts,
            node: self.node,
            ovsdb_socket: self.ovsdb_socket,
        })
    }
}
