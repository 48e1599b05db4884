//! A private Open vSwitch for tests.

use super::{Cache, Client, value::map};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::time::Instant;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// A private database without a switch.
pub(crate) struct Server {
    child: Child,
    switch: Option<Child>,
    directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in self.switch.iter_mut().chain([&mut self.child]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Server {
    /// `None`: Open vSwitch is not installed.
    pub(crate) fn start() -> Option<Self> {
        let schema = ["/usr/share/openvswitch/vswitch.ovsschema", "/usr/local/share/openvswitch/vswitch.ovsschema"]
            .into_iter()
            .find(|path| Path::new(path).exists())?;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("conf.db");
        let made = Command::new("ovsdb-tool").arg("create").args([&file, Path::new(schema)]).status().ok()?;
        assert!(made.success());
        let child = Self::run(directory.path());
        Some(Self { child, switch: None, directory })
    }

    /// Starts the switch, with its userspace datapath, in the calling thread's namespace.
    pub(crate) fn start_switch(&mut self) {
        let directory = self.directory.path();
        let switch = Command::new("ovs-vswitchd")
            .arg(format!("unix:{}", self.socket().display()))
            .arg(format!("--unixctl={}", directory.join("switch.ctl").display()))
            .args(["--no-chdir", "--disable-system", "--verbose=off"])
            .env("OVS_RUNDIR", directory)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.switch = Some(switch);
    }

    fn run(directory: &Path) -> Child {
        Command::new("ovsdb-server")
            .arg(directory.join("conf.db"))
            .arg(format!("--remote=punix:{}", directory.join("db.sock").display()))
            .arg(format!("--unixctl={}", directory.join("ctl").display()))
            .args(["--no-chdir", "--verbose=off"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("db.sock")
    }

    pub(crate) fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::run(self.directory.path());
    }

    /// A client, and the bridge `br-int` made; `external_ids` are what `Open_vSwitch` has besides its host's name.
    pub(crate) async fn client(&self, external_ids: &[(&str, &str)]) -> Client {
        let client = Client::start(&self.socket());
        let external_ids = map(&[&[("hostname", "node0")], external_ids].concat());
        let make = vec![
            json!({ "op": "insert", "table": "Bridge", "uuid-name": "bridge",
                    "row": { "name": "br-int", "datapath_type": "netdev" } }),
            json!({ "op": "insert", "table": "Open_vSwitch",
                    "row": { "bridges": ["named-uuid", "bridge"], "external_ids": external_ids } }),
        ];
        client.transact(soon(), make).await.unwrap();
        client
    }
}

/// What a node with `ovn-controller` says of it.
pub(crate) const OVN: &[(&str, &str)] = &[("ovn-remote", "unix:/run/ovn/ovnsb_db.sock"), ("ovn-encap-type", "geneve")];

/// Does for ever what Neutron's Open vSwitch agent does with new ports: it gives those that have a number the VLAN of their network.
pub(crate) async fn agent(socket: &Path, vlan: i64) {
    let client = Client::start(socket);
    loop {
        let dead = |cache: &Cache| {
            let works = |id| cache.interfaces.get(id).is_some_and(|interface| interface.ofport > Some(0));
            let mut dead = cache.ports.values().filter(|port| port.tag == Some(4095));
            dead.find(|port| port.interfaces.iter().all(works)).map(|port| port.name.clone())
        };
        let Ok(name) = client.wait(soon(), dead).await else { continue };
        let wire = json!({ "op": "update", "table": "Port", "where": [["name", "==", name]], "row": { "tag": vlan } });
        client.transact(soon(), vec![wire]).await.unwrap();
        let wired =
            |cache: &Cache| cache.ports.values().all(|port| port.name != name || port.tag == Some(vlan)).then_some(());
        client.wait(soon(), wired).await.unwrap();
    }
}
