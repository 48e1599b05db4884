//! The embedded world: everything but Kuryr's own programs is in this process.

use super::{
    Ground, Kuryr, Settings, Vm, World,
    kuryr::NodePlace,
    machines::Played,
    process::executable,
    wiring::{Flaw, Wire},
};
use crate::{
    cloud::{self, Cloud, HostKind, Latency, PortStatus},
    dataplane::{Agent, CORE, Fabric},
    kubernetes::{
        ApiServer, ApiServerConfig, Endpoints, Kubelet, KubeletConfig, Scheduler, ServerHandle, kubeconfig,
        remove_netns,
    },
};
use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use kuryr_model::ClusterId;
use kuryr_openstack::CloudConfig;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// The port number of a daemon's health endpoint on its node.
pub(super) const HEALTH: u16 = 9651;

/// The external network of the embedded cloud, which is there before Kuryr is set up, and its addresses.
pub const EXTERNAL: &str = "public";
const EXTERNAL_CIDR: &str = "198.18.0.0/24";

/// Where Services get their cluster IPs from, unless said otherwise.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";

/// Where they get them from in the second family, once Kuryr is set up for that.
pub const SERVICE_CIDR_V6: &str = "fd00:96::/112";

/// A flavor of amphorae and an availability zone that Octavia has.
pub const FLAVOR: &str = "5f0c1a52-6d0e-4d1c-8a40-0d7c5a3c1f01";
/// See [`FLAVOR`].
pub const AVAILABILITY_ZONE: &str = "az1";

fn load_balancing() -> anyhow::Result<cloud::LoadBalancingConfig> {
    let flavor = cloud::Flavor { id: FLAVOR.parse()?, name: "small".into(), provider: "amphora".into(), enabled: true };
    Ok(cloud::LoadBalancingConfig {
        flavors: vec![flavor],
        availability_zones: vec![AVAILABILITY_ZONE.to_owned()],
        ..cloud::LoadBalancingConfig::default()
    })
}

/// How an embedded world is made.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// Where the files of network namespaces are: of this process alone.
    pub netns: PathBuf,
    /// How many nodes.
    pub nodes: usize,
    /// How long the cloud's calls take.
    pub latency: Latency,
    /// Pod networks.
    pub pod_cidrs: Vec<String>,
    /// Where Services get their cluster IPs from.
    pub service_cidrs: Vec<String>,
    /// How Octavia behaves.
    pub load_balancing: cloud::LoadBalancingConfig,
    /// More lines for `kuryr.toml`.
    pub settings: String,
    /// Install the custom resources and run `kuryr setup`.
    pub set_up: bool,
    /// Start a controller and the daemons.
    pub start_kuryr: bool,
}

impl EmbeddedConfig {
    /// Two nodes, a quick cloud, and Kuryr running.
    #[must_use]
    pub fn new(netns: &Path) -> Self {
        Self {
            netns: netns.to_owned(),
            nodes: 2,
            latency: Latency::default(),
            pod_cidrs: vec!["10.10.0.0/20".to_owned()],
            service_cidrs: vec![SERVICE_CIDR.to_owned()],
            // The id is one.
            load_balancing: load_balancing().unwrap_or_default(),
            settings: String::new(),
            set_up: true,
            start_kuryr: true,
        }
    }
}

/// The parts of an embedded world.
pub struct Embedded {
    /// The cloud.
    pub cloud: Cloud,
    /// The API server.
    pub api: ApiServer,
    /// The nodes' kubelets.
    pub kubelets: BTreeMap<String, Kubelet>,
    /// The nodes and the wires between them.
    pub fabric: Fabric,
    /// Where the cloud listens.
    pub cloud_server: cloud::Server,
    /// Where the API server listens.
    pub api_server: ServerHandle,
    settings: String,
    /// Settings of `[pools]`.
    pools: Mutex<String>,
    netns: PathBuf,
    // In the order in which they are to end.
    _scheduler: Scheduler,
    _endpoints: Endpoints,
    _agent: Agent,
    wire: Wire,
    /// Nodes that are virtual machines.
    pub(super) vms: Vec<Vm>,
    /// Those whose kubelets and daemons are played.
    pub(super) played: BTreeMap<String, Played>,
    folder: TempDir,
}

/// Starts one.
pub(super) async fn start(config: EmbeddedConfig) -> anyhow::Result<World> {
    let folder = tempfile::Builder::new().prefix("kuryr-world-").tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let names: Vec<String> = (0..config.nodes).map(|number| format!("node{number}")).collect();
    let name_refs: Vec<&str> = names.iter().map(String::as_str).collect();
    let fabric = Fabric::new(&config.netns, &name_refs)?;

    // Not words that may stand in a log for another reason.
    let secret = || uuid::Uuid::new_v4().to_string();
    let cloud = Cloud::new(cloud::Config {
        latency: config.latency.clone(),
        load_balancing: config.load_balancing,
        password: secret(),
        ..cloud::Config::default()
    });
    ensure!(cloud.add_external_network(EXTERNAL, EXTERNAL_CIDR.parse()?), "the cloud refuses an external network");
    for name in &names {
        cloud.add_host(name, HostKind::Tap);
    }
    let cloud_server = cloud.serve(TcpListener::bind((CORE, 0)).await?)?;
    let service_cidrs = config.service_cidrs.iter().map(String::as_str).chain([SERVICE_CIDR_V6]);
    let service_cidrs = service_cidrs.map(str::parse).collect::<Result<_, _>>()?;
    let api = ApiServer::with_config(ApiServerConfig { service_cidrs, ..ApiServerConfig::default() });
    let api_server = api.serve(TcpListener::bind((CORE, 0)).await?)?;

    let wire = Wire::new(&cloud);
    let reported = cloud.clone();
    let agent = Agent::start(&fabric, wire.desired.clone(), move |port, works| {
        reported.set_port_status(port.0, if works { PortStatus::Active } else { PortStatus::Down });
    })?;

    let mut kubeconfig: Value = serde_json::from_str(&kubeconfig(&api_server.url()))?;
    kubeconfig["users"][0]["user"]["token"] = secret().into();
    fs::write(at("kubeconfig"), kubeconfig.to_string())?;
    fs::write(at("clouds.yaml"), cloud_server.clouds_yaml())?;
    write_config(&at("kuryr.toml"), &Lines::default(), NO_POOLS, &config.settings)?;
    let settings = Settings {
        folder: folder.path().to_owned(),
        config: at("kuryr.toml"),
        controller_kubeconfig: at("kubeconfig"),
        daemon_kubeconfig: at("kubeconfig"),
        admin_kubeconfig: at("kubeconfig"),
        cloud_env: vec![("OS_CLIENT_CONFIG_FILE".to_owned(), at("clouds.yaml").display().to_string())],
        log: "info".to_owned(),
    };
    let places = fabric.nodes().iter().map(|node| NodePlace {
        name: node.name.clone(),
        netns: Some(node.netns.clone()),
        listen: (node.address, HEALTH).into(),
    });
    let mut kuryr = Kuryr::new(settings, places.collect())?;
    let steps = if config.set_up { set_up(&config.pod_cidrs, &config.service_cidrs).to_vec() } else { Vec::new() };
    for args in steps {
        let (code, output) = kuryr.run(args.clone()).await?;
        ensure!(code == Some(0), "kuryr {} ended with {code:?}: {output}", args.join(" "));
    }

    let client = api.client("testbed");
    let scheduler = Scheduler::start(api.client("scheduler"));
    let endpoints = Endpoints::start(api.client("endpointslice-controller"));
    if config.start_kuryr {
        kuryr.start_controller().await?;
        for name in &names {
            kuryr.start_daemon(name).await?;
        }
    }
    let mut kubelets = BTreeMap::new();
    for node in fabric.nodes() {
        let home = at(&node.name);
        let netns = config.netns.join(format!("pods-{}", node.name));
        let conf = cni_conf(&kuryr.socket(&node.name))?;
        let mut settings = KubeletConfig::new(&node.name, api.client("kubelet"), executable("kuryr-cni")?, conf, &home);
        settings.netns_dir = netns;
        settings.address = node.address.into();
        kubelets.insert(node.name.clone(), Kubelet::start(settings).await?);
    }

    let sources = kuryr_openstack::Sources {
        cloud: Some("kuryr".to_owned()),
        clouds_file: Some(at("clouds.yaml")),
        secret_dir: None,
    };
    let os = kuryr_openstack::Cloud::connect(CloudConfig::load(&sources)?).await?;
    let cluster = cluster_id(&client).await?;
    let embedded = Embedded {
        cloud,
        api,
        kubelets,
        fabric,
        cloud_server,
        api_server,
        settings: config.settings,
        pools: Mutex::new(NO_POOLS.to_owned()),
        netns: config.netns,
        _scheduler: scheduler,
        _endpoints: endpoints,
        _agent: agent,
        wire,
        vms: Vec::new(),
        played: BTreeMap::new(),
        folder,
    };
    let ground = Ground::Embedded(Box::new(embedded));
    Ok(World {
        client,
        cloud: os,
        cluster,
        nodes: names,
        kuryr,
        ground,
        namespace: "default".to_owned(),
        more_namespaces: Vec::new(),
    })
}

/// What an operator does first: arguments of `kuryr`.
#[must_use]
pub fn set_up(pod_cidrs: &[String], service_cidrs: &[String]) -> [Vec<String>; 2] {
    let mut setup = vec!["setup".to_owned()];
    setup.extend(pod_cidrs.iter().map(|cidr| format!("--pod-cidr={cidr}")));
    setup.extend(service_cidrs.iter().map(|cidr| format!("--service-cidr={cidr}")));
    setup.push(format!("--external-network={EXTERNAL}"));
    [vec!["crds".to_owned(), "--apply".to_owned()], setup]
}

/// The network configuration that is deployed, for a node whose daemon listens at `socket`.
pub(super) fn cni_conf(socket: &Path) -> anyhow::Result<Value> {
    let mut conf: Value = serde_json::from_str(include_str!("../../../../deploy/10-kuryr.conflist"))?;
    conf["plugins"][0]["kuryrSocket"] = json!(socket);
    Ok(conf)
}

/// Of its several providers, the cloud's default, as settings.
pub(crate) const PROVIDER: &str = "[services]\nprovider = \"ovn\"\n";

/// Lines of `kuryr.toml` that a scenario chooses.
#[derive(Clone, Copy, Default)]
struct Lines<'a> {
    /// Settings in `[openstack]`.
    openstack: &'a str,
    /// Whole sections before `[controller]`.
    sections: &'a str,
    /// Settings in `[controller]`.
    controller: &'a str,
    /// Settings in `[daemon]`.
    daemon: &'a str,
}

/// What becomes of single ports is told without pools, which make and keep some of their own accord.
const NO_POOLS: &str = "enabled = false";

/// A short lease, so that scenarios need not wait long for a standby, and not so short that a busy machine misses it. `more` may have a
/// section of pools of its own.
fn write_config(path: &Path, lines: &Lines<'_>, pools: &str, more: &str) -> anyhow::Result<()> {
    let Lines { openstack, sections, controller, daemon } = lines;
    let text = format!(
        "[openstack]\ncloud = \"kuryr\"\n{openstack}\n{PROVIDER}{sections}\n[controller]\nlease_duration = \"5s\"\nnode_cooldown = \"3s\"\n{controller}\n\
         [daemon]\nadd_timeout = \"20s\"\n{daemon}\n{more}"
    );
    let text = if more.contains("[pools]") { text } else { format!("{text}\n[pools]\n{pools}\n") };
    Ok(fs::write(path, text)?)
}

pub(super) async fn cluster_id(client: &Client) -> anyhow::Result<ClusterId> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let metadata = namespaces.get_metadata("kube-system").await?.metadata;
    metadata.uid.map(ClusterId).context("kube-system has no UID")
}

impl Embedded {
    /// Where logs and configurations are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the files of network namespaces are.
    #[must_use]
    pub fn netns_folder(&self) -> &Path {
        &self.netns
    }

    /// Writes `kuryr.toml` anew with a `[network]` section.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn configure_network(&self, network: &str) -> anyhow::Result<()> {
        self.configure(Lines { sections: network, ..Lines::default() })
    }

    /// Writes `kuryr.toml` anew with port pools of these settings, which it has from now on.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn configure_pools(&self, pools: &str) -> anyhow::Result<()> {
        pools.clone_into(&mut self.pools.lock().unwrap_or_else(PoisonError::into_inner));
        self.configure(Lines::default())
    }

    fn configure(&self, lines: Lines<'_>) -> anyhow::Result<()> {
        write_config(
            &self.folder.path().join("kuryr.toml"),
            &lines,
            &self.pools.lock().unwrap_or_else(PoisonError::into_inner),
            &self.settings,
        )
    }

    /// Writes `kuryr.toml` anew with settings of `[openstack]`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn configure_openstack(&self, openstack: &str) -> anyhow::Result<()> {
        self.configure(Lines { openstack, ..Lines::default() })
    }

    /// Writes `kuryr.toml` anew with settings of the controller.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn configure_controller(&self, controller: &str) -> anyhow::Result<()> {
        self.configure(Lines { controller, ..Lines::default() })
    }

    /// Writes `kuryr.toml` anew with settings of daemons.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn configure_daemon(&self, daemon: &str) -> anyhow::Result<()> {
        self.configure(Lines { daemon, ..Lines::default() })
    }

    /// A quota of Kuryr's project in Octavia, such as `load_balancer`; -1 for no limit.
    ///
    /// # Errors
    /// The cloud has no such project.
    pub fn set_load_balancing_quota(&self, name: &str, limit: i64) -> anyhow::Result<()> {
        self.cloud.load_balancing().set_quota(&self.project()?, name, limit);
        Ok(())
    }

    fn project(&self) -> anyhow::Result<String> {
        let name = self.cloud.config().projects.first().context("the cloud has no project")?;
        self.cloud.project_id(name).context("the cloud lost its project")
    }

    /// What of security groups is not enforced from now on.
    pub fn spoil(&self, flaw: Flaw) {
        self.wire.spoil(flaw);
    }

    /// A quota of Kuryr's project in Neutron, such as `security_group`; -1 for no limit.
    ///
    /// # Errors
    /// The cloud has no such project.
    pub fn set_quota(&self, kind: &str, limit: i64) -> anyhow::Result<()> {
        self.cloud.set_quota(&self.project()?, kind, limit);
        Ok(())
    }

    /// Makes a quota so small that so many more fit.
    ///
    /// # Errors
    /// The cloud does not tell how many there are.
    pub async fn leave_free(&self, client: &kuryr_openstack::Cloud, kind: &str, free: u64) -> anyhow::Result<()> {
        let quotas = client.network().quotas(&self.project()?.into()).await?;
        let used = quotas.get(kind).with_context(|| format!("no quota of {kind}"))?.used;
        self.set_quota(kind, i64::try_from(used + free)?)
    }

    /// The quota of ports of Kuryr's project.
    ///
    /// # Errors
    /// The cloud has no such project.
    pub fn set_port_quota(&self, limit: i64) -> anyhow::Result<()> {
        self.cloud.set_quota(&self.project()?, "port", limit);
        Ok(())
    }

    /// How many ports Kuryr's project has.
    #[must_use]
    pub fn ports_used(&self) -> i64 {
        // A router's way out belongs to nobody.
        let project = self.project().unwrap_or_default();
        let ports = self.cloud.ports().into_iter().filter(|port| port.project == project);
        i64::try_from(ports.count()).unwrap_or(i64::MAX)
    }

    /// A node fails for good: its kubelet is gone, and nobody cleans up on it.
    ///
    /// # Errors
    /// There is no such node.
    pub async fn burn_down(&mut self, node: &str) -> anyhow::Result<()> {
        self.kubelets.remove(node).with_context(|| format!("no node {node}"))?.stop().await;
        Ok(())
    }

    /// The node loses power; with what is returned its kubelet can be started again.
    pub(super) async fn cut_power(&mut self, node: &str) -> anyhow::Result<KubeletConfig> {
        Ok(self.kubelets.remove(node).with_context(|| format!("no node {node}"))?.lose_power().await)
    }

    /// A sandbox's network namespace goes, and no CNI plugin is told.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn lose_sandbox(&self, netns: &Path) -> anyhow::Result<()> {
        Ok(remove_netns(netns)?)
    }

    /// The API server goes away for a second and comes back with all it had.
    pub async fn restart_api_server(&self) {
        self.api_server.restart(Duration::from_secs(1)).await;
    }

    /// Ends everything.
    pub(super) async fn shut_down(self) {
        for (_, kubelet) in self.kubelets {
            kubelet.shutdown().await;
        }
    }
}
