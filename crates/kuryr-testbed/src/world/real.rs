//! The real world: an OpenStack and a Kubernetes that `e2e/` has started on this machine. Kuryr's processes are ours.

use super::{Ground, Kuryr, Settings, World, embedded::cluster_id, kuryr::NodePlace, process::executable};
use anyhow::{Context, ensure};
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use kuryr_model::{PortId, VifAddress, neutron::Port};
use kuryr_openstack::{Cloud, CloudConfig, Sources};
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// Where the parts of a real world are.
#[derive(Clone, Debug)]
pub struct RealConfig {
    /// What Kuryr's processes are started with.
    pub settings: Settings,
    /// Name of the cloud in clouds.yaml.
    pub cloud: String,
    /// The clouds.yaml.
    pub clouds_file: PathBuf,
    /// The scripts that have started it all.
    pub scripts: PathBuf,
    /// The node.
    pub node: String,
    /// The unix socket of its OVSDB server.
    pub ovsdb_socket: PathBuf,
}

/// The parts of a real world.
pub struct Real {
    scripts: PathBuf,
    ovsdb_socket: PathBuf,
}

/// The network namespace of the rest of the world.
const OUTSIDE: &str = "kuryr-e2e-outside";

/// With what the names of the network namespaces of "VMs" begin.
const VM: &str = "kuryr-e2e-";

/// Starts a daemon and a controller in it.
pub(super) async fn start(config: RealConfig) -> anyhow::Result<World> {
    let mut world = join(config).await?;
    let node = world.nodes[0].clone();
    world.kuryr.begin_daemon(&node).await?;
    world.kuryr.start_controller().await?;
    world.kuryr.daemon_ready(&node).await?;
    Ok(world)
}

/// Starts nothing.
pub(super) async fn join(config: RealConfig) -> anyhow::Result<World> {
    let file = Kubeconfig::read_from(&config.settings.admin_kubeconfig)?;
    let client = Client::try_from(kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?)?;
    let sources =
        Sources { cloud: Some(config.cloud.clone()), clouds_file: Some(config.clouds_file.clone()), secret_dir: None };
    let cloud = Cloud::connect(CloudConfig::load(&sources)?).await?;
    let cluster = cluster_id(&client).await?;
    let place = NodePlace { name: config.node.clone(), netns: None, listen: ([127, 0, 0, 1], 9661).into() };
    let kuryr = Kuryr::new(config.settings, vec![place])?;
    let ground = Ground::Real(Box::new(Real { scripts: config.scripts, ovsdb_socket: config.ovsdb_socket }));
    Ok(World {
        client,
        cloud,
        cluster,
        nodes: vec![config.node],
        kuryr,
        ground,
        namespace: "default".to_owned(),
        more_namespaces: Vec::new(),
    })
}

impl Real {
    /// Restarts a service of the stack and waits until it is back.
    pub(super) async fn restart(&self, script: &str, service: &str) -> anyhow::Result<()> {
        run(Command::new(self.scripts.join(script)).args(["restart", service])).await
    }

    /// A script of the stack with these arguments; what it prints.
    pub(super) async fn script(&self, script: &str, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(self.scripts.join(script));
        // Its executables are those of this world.
        command.args(args).env("KURYR_BIN", executable("kuryr")?).env("KURYR_TESTBED", std::env::current_exe()?);
        let output = command.output().await.with_context(|| format!("{command:?}"))?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{script} {}: {}: {printed}{said}", args.join(" "), output.status);
        Ok(printed)
    }

    /// The network namespace of the "VM" with this interface.
    pub(super) fn vm_netns(&self, wire: &str) -> PathBuf {
        PathBuf::from("/var/run/netns").join(format!("{VM}{wire}"))
    }

    pub(super) fn outside_netns(&self) -> PathBuf {
        PathBuf::from("/var/run/netns").join(OUTSIDE)
    }

    /// Does what nova and its host would do: an interface on the integration bridge, named after the port, in a
    /// namespace. Its name.
    pub(super) async fn plug_vm(&self, port: &Port, addresses: &[VifAddress], mtu: u32) -> anyhow::Result<String> {
        let wire = format!("vm{}", &port.id.to_string()[..11]);
        let (mac, mtu) = (port.mac_address.to_string(), mtu.to_string());
        let netns = format!("{VM}{wire}");
        run(Command::new("ip").args(["netns", "add", &netns])).await?;
        run(self.vsctl().args(["add-port", "br-int", &wire, "--", "set", "Interface", &wire, "type=internal"]).args([
            format!("mac=\"{mac}\""),
            format!("external_ids:iface-id={}", port.id),
            format!("external_ids:attached-mac=\"{mac}\""),
        ]))
        .await?;
        run(Command::new("ip").args(["link", "set", &wire, "netns", &netns])).await?;
        let inside = |args: &[&str]| {
            let mut command = Command::new("ip");
            command.args(["-n", &netns]).args(args);
            command
        };
        run(&mut inside(&["link", "set", &wire, "address", &mac, "mtu", &mtu, "up"])).await?;
        run(&mut inside(&["link", "set", "lo", "up"])).await?;
        for address in addresses {
            let text = format!("{}/{}", address.ip, address.prefix_length);
            run(&mut inside(&["addr", "add", &text, "dev", &wire])).await?;
            if let Some(gateway) = address.gateway {
                run(&mut inside(&["route", "add", "default", "via", &gateway.to_string()])).await?;
            }
        }
        Ok(wire)
    }

    pub(super) async fn unplug_vm(&self, wire: &str) -> anyhow::Result<()> {
        run(self.vsctl().args(["--if-exists", "del-port", "br-int", wire])).await?;
        run(Command::new("ip").args(["netns", "delete", &format!("{VM}{wire}")])).await
    }

    /// Has Neutron believe that a subport is down, as one whose event is overtaken by another does for ever. It heals by itself
    /// what only OVN has lost of a subport: it writes that anew when OVN says that the port is down.
    pub(super) async fn believe_down(&self, port: PortId) -> anyhow::Result<()> {
        let stack = self.ovsdb_socket.parent().and_then(Path::parent).context("no folder of the stack's sockets")?;
        let socket = format!("--socket={}", stack.join("mariadb/mariadb.sock").display());
        let change = format!("update ports set status = 'DOWN' where id = '{port}'");
        run(Command::new("mariadb").args(["--no-defaults", "--user=root", &*socket, "neutron", "--execute", &*change]))
            .await
    }

    fn vsctl(&self) -> Command {
        let mut command = Command::new("ovs-vsctl");
        command.arg(format!("--db=unix:{}", self.ovsdb_socket.display()));
        command
    }
}

async fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().await.with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
