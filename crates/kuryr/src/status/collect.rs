//! Reads everything that is judged. Nothing here fails: what cannot be read says why.

use super::{
    Settings,
    machines::{self, MachineFacts},
    policies::{self, PolicyFacts},
};
use crate::{
    cloud::{cluster_id, named, only},
    http,
    kubernetes::minor,
    view::{ClusterView, NodeView, guarded},
};
use anyhow::Context as _;
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Service as KubeService},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, CustomResourceExt as _, api::ListParams, runtime::wait::await_condition};
use kuryr_controller::{ControllerConfig, survey::services_off};
use kuryr_model::{
    ClusterId, KuryrLoadBalancer, KuryrPort, Mark, ObjectKey, Purpose,
    mark::{Base, cluster_tag},
    neutron::{Port, SecurityGroup, Subnet},
};
use kuryr_openstack::{
    Cloud, Error, Filter, Identity, Service, chain,
    network::{agents::Agent, extensions::Extensions, ip_availability::SubnetUse, quotas::Quota},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    time::Duration,
};
use tokio::net::TcpStream;

/// How long a daemon may take to say how it is: it may itself wait two seconds for Open vSwitch.
const PATIENCE: Duration = Duration::from_secs(4);
const ASKED_AT_ONCE: usize = 32;

/// A fact, or why it is not known.
pub(crate) type Known<T> = Result<T, String>;

/// All that is judged.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) now: Timestamp,
    pub(crate) cluster: Known<ClusterId>,
    pub(crate) kubernetes: Known<Kubernetes>,
    pub(crate) cloud: Known<CloudFacts>,
    /// Nodes that are virtual machines; none where nodes or Neutron cannot be asked.
    pub(crate) machines: Known<Vec<MachineFacts>>,
    /// Spare ports that each node has at least, as configured; none: there are no port pools.
    pub(crate) floor: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct Kubernetes {
    /// As the server writes it, and the minor version of 1.x.
    pub(crate) version: Known<(String, u32)>,
    pub(crate) definition: Known<Option<Definition>>,
    pub(crate) lease_name: String,
    pub(crate) lease: Known<Option<LeaseFacts>>,
    pub(crate) view: Known<ClusterView>,
    pub(crate) services: Known<Vec<ServiceFacts>>,
    pub(crate) policies: Known<Vec<PolicyFacts>>,
    /// Each node's daemon; none are asked if they listen for their own nodes only.
    pub(crate) daemons: Option<BTreeMap<String, Daemon>>,
}

/// A Service, and what is said of its load balancer.
#[derive(Debug)]
pub(crate) struct ServiceFacts {
    pub(crate) key: ObjectKey,
    /// It has a cluster IP and ports.
    pub(crate) wants: bool,
    pub(crate) created: Option<Timestamp>,
    pub(crate) held: Held,
}

/// The `KuryrLoadBalancer` of a Service.
#[derive(Debug, Default)]
pub(crate) enum Held {
    /// There is none.
    #[default]
    Nothing,
    /// One that says how things are.
    Good(Box<KuryrLoadBalancer>),
    /// One that cannot be read, and why.
    Odd(String),
}

/// What a node's daemon says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Daemon {
    /// Pods can be attached.
    Ready,
    /// They cannot, and why.
    NotReady(String),
    /// Nobody listens where it should.
    Absent(SocketAddr),
    /// It cannot be asked from here.
    Unknown(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) established: bool,
    /// Whether nodes can watch their own `KuryrPort`s.
    pub(crate) selectable: bool,
}

/// Who holds the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaseFacts {
    pub(crate) holder: String,
    /// Whether it was renewed while we looked: its time is of another clock than ours, and says nothing.
    pub(crate) renewed: bool,
    /// For how long we looked at most: as long as the Lease lasts.
    pub(crate) seconds: u64,
}

#[derive(Debug)]
pub(crate) struct CloudFacts {
    pub(crate) auth_url: String,
    pub(crate) network_url: String,
    pub(crate) identity: Identity,
    pub(crate) extensions: Known<Extensions>,
    pub(crate) quotas: Known<BTreeMap<String, Quota>>,
    pub(crate) subnets: Known<Vec<SubnetFacts>>,
    pub(crate) groups: Known<Vec<(Base, SecurityGroup)>>,
    pub(crate) agents: Known<Vec<Agent>>,
    pub(crate) ports: Known<Vec<Port>>,
    pub(crate) octavia_url: String,
    /// Why Services are off, if they are.
    pub(crate) services: Known<Option<String>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SubnetFacts {
    pub(crate) subnet: Subnet,
    /// How full it is, if we may know.
    pub(crate) used: Option<SubnetUse>,
}

pub(crate) async fn collect(
    settings: &Settings,
    cloud: anyhow::Result<Cloud>,
    client: anyhow::Result<Client>,
) -> Facts {
    let given = settings.cluster_id.as_deref();
    let cluster = cluster_id(given, client.as_ref().ok()).await.map_err(|error| format!("{error:#}"));
    let kubernetes = async {
        match client {
            Ok(client) => Ok(kubernetes(settings, &client).await),
            Err(error) => Err(format!("{error:#}")),
        }
    };
    let openstack = async {
        match &cloud {
            Ok(cloud) => Ok(openstack(settings, &cluster, cloud).await),
            Err(error) => Err(format!("{error:#}")),
        }
    };
    let (kubernetes, facts) = futures::join!(kubernetes, openstack);
    let view = kubernetes.as_ref().ok().and_then(|kubernetes: &Kubernetes| kubernetes.view.as_ref().ok());
    let machines = match (view, &cloud) {
        (Some(view), Ok(cloud)) => machines::find(&view.nodes, settings.nested, cloud).await,
        _ => Ok(Vec::new()),
    };
    Facts { now: Timestamp::now(), cluster, kubernetes, cloud: facts, machines, floor: settings.pools_floor }
}

async fn kubernetes(settings: &Settings, client: &Client) -> Kubernetes {
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let name = KuryrPort::crd_name();
    let leases = Api::<Lease>::namespaced(client.clone(), &settings.lease_namespace);
    let nodes = async {
        let view = ClusterView::read(client).await;
        let daemons = match &view {
            Ok(view) if !settings.daemons.ip().is_loopback() => {
                Some(daemons(&view.nodes, settings.daemons.port()).await)
            }
            _ => None,
        };
        (view, daemons)
    };
    let (version, definition, lease, (view, daemons), services, policies) = futures::join!(
        client.apiserver_version(),
        definitions.get_opt(name),
        lease(&leases, &settings.lease_name),
        nodes,
        services(client),
        policies::read(client)
    );
    let version = version.map_err(|error| chain(&error)).and_then(|info| {
        let minor = minor(&info).ok_or_else(|| format!("{:?} is no minor version", info.minor))?;
        Ok((info.git_version, minor))
    });
    Kubernetes {
        version,
        definition: definition.map(|found| found.as_ref().map(read_definition)).map_err(|error| chain(&error)),
        lease_name: format!("{}/{}", settings.lease_namespace, settings.lease_name),
        lease,
        view: view.map_err(|error| format!("{error:#}")),
        services: services.map_err(|error| format!("{error:#}")),
        policies: policies.map_err(|error| format!("{error:#}")),
        daemons,
    }
}

async fn services(client: &Client) -> anyhow::Result<Vec<ServiceFacts>> {
    let all = ListParams::default();
    let services = Api::<KubeService>::all(client.clone()).list(&all).await.context("Services cannot be listed")?;
    let (good, unreadable) = guarded::<KuryrLoadBalancer>(client).await?;
    let mut held: BTreeMap<ObjectKey, Held> =
        good.into_iter().map(|held| (held.key(), Held::Good(Box::new(held)))).collect();
    held.extend(unreadable.into_iter().map(|odd| (odd.key, Held::Odd(odd.why))));
    let read = |service: &KubeService| {
        let key = ObjectKey::of(service);
        let spec = service.spec.clone().unwrap_or_default();
        let address = spec.cluster_ip.filter(|ip| !ip.is_empty() && ip != "None");
        ServiceFacts {
            wants: address.is_some() && spec.ports.is_some_and(|ports| !ports.is_empty()),
            created: service.metadata.creation_timestamp.as_ref().map(|time| time.0),
            held: held.remove(&key).unwrap_or_default(),
            key,
        }
    };
    let mut facts: Vec<ServiceFacts> = services.iter().map(read).collect();
    // Those whose Service is gone.
    facts.extend(held.into_iter().map(|(key, held)| ServiceFacts { key, wants: false, created: None, held }));
    Ok(facts)
}

/// Asks the daemon of each node how it is.
async fn daemons(nodes: &[NodeView], port: u16) -> BTreeMap<String, Daemon> {
    let asked = nodes.iter().map(|node| async move {
        let daemon = match node.address {
            Some(ip) => daemon(SocketAddr::new(ip, port)).await,
            None => Daemon::Unknown("the Node has no InternalIP".to_owned()),
        };
        (node.name.clone(), daemon)
    });
    futures::stream::iter(asked).buffer_unordered(ASKED_AT_ONCE).collect().await
}

async fn daemon(address: SocketAddr) -> Daemon {
    let ask = async { http::request(TcpStream::connect(address).await?, "GET", "/readyz").await };
    match tokio::time::timeout(PATIENCE, ask).await {
        Err(_) => Daemon::Unknown(format!("no answer from {address} within {} s", PATIENCE.as_secs())),
        Ok(Ok((200, _))) => Daemon::Ready,
        // As where this command runs something else may have the node's address.
        Ok(Ok((status, why))) if why.trim().is_empty() => {
            Daemon::Unknown(format!("what answers at {address} is no daemon (HTTP {status})"))
        }
        Ok(Ok((_, why))) => Daemon::NotReady(why.trim().replace('\n', "; ")),
        Ok(Err(error)) => match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => Daemon::Absent(address),
            _ => Daemon::Unknown(format!("{address}: {error:#}")),
        },
    }
}

/// Who holds the Lease, and whether it is renewed. A holder renews it several times as long as it lasts; that is waited for.
async fn lease(leases: &Api<Lease>, name: &str) -> Known<Option<LeaseFacts>> {
    let found = leases.get_opt(name).await.map_err(|error| chain(&error))?;
    let Some(found) = found else { return Ok(None) };
    let before = found.metadata.resource_version.clone();
    let Some((holder, seconds)) = held(&found) else { return Ok(None) };
    let moved = move |lease: Option<&Lease>| lease.is_none_or(|lease| lease.metadata.resource_version != before);
    match tokio::time::timeout(Duration::from_secs(seconds), await_condition(leases.clone(), name, moved)).await {
        Err(_) => Ok(Some(LeaseFacts { holder, renewed: false, seconds })),
        Ok(Err(error)) => Err(chain(&error)),
        Ok(Ok(lease)) => {
            let held = lease.as_ref().and_then(held);
            Ok(held.map(|(holder, seconds)| LeaseFacts { holder, renewed: true, seconds }))
        }
    }
}

/// The holder, and for how many seconds it holds.
fn held(lease: &Lease) -> Option<(String, u64)> {
    let spec = lease.spec.as_ref()?;
    let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty())?;
    Some((holder, spec.lease_duration_seconds.and_then(|seconds| seconds.try_into().ok()).unwrap_or(15)))
}

fn read_definition(definition: &CustomResourceDefinition) -> Definition {
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    Definition {
        established: conditions.into_iter().any(|c| c.type_ == "Established" && c.status == "True"),
        selectable: definition.spec.versions.iter().any(|version| version.selectable_fields.is_some()),
    }
}

async fn openstack(settings: &Settings, cluster: &Known<ClusterId>, cloud: &Cloud) -> CloudFacts {
    let network = cloud.network();
    let identity = cloud.identity();
    let project = identity.project.clone();
    let say = |error: Error| chain(&error);
    let quotas = async {
        match &project {
            Some(project) => network.quotas(project).await.map_err(say),
            None => Err("the token is for no project".to_owned()),
        }
    };
    let ours = async {
        let filter = Filter::new().tags([cluster_tag(cluster.as_ref().map_err(Clone::clone)?)]);
        Ok::<_, String>((network.security_groups().list(&filter).await, network.ports().list(&filter).await))
    };
    let off = async {
        let cluster = cluster.as_ref().map_err(Clone::clone)?.clone();
        let mut config = ControllerConfig::new(cluster, String::new());
        (config.pod_subnets, config.services) = (settings.pod_subnets.clone(), settings.services.clone());
        services_off(&config, cloud).await.map_err(|error| chain(&error))
    };
    let every_agent = Filter::new();
    let (extensions, quotas, subnets, agents, ours, services) = futures::join!(
        network.extensions(),
        quotas,
        subnets(settings, cluster, cloud),
        network.agents_if_asked_twice(&every_agent),
        ours,
        off
    );
    let (groups, ports) = match ours {
        Ok((groups, ports)) => (groups.map_err(say), ports.map_err(say)),
        Err(error) => (Err(error.clone()), Err(error)),
    };
    let role = |group: SecurityGroup| match Mark::read(cluster.as_ref().ok()?, &group.tags)?.purpose {
        Purpose::Base(base) => Some((base, group)),
        Purpose::Pod(_) | Purpose::Pool | Purpose::Service(_) | Purpose::Group(_) => None,
    };
    CloudFacts {
        auth_url: cloud.url(Service::Identity).unwrap_or_default(),
        network_url: cloud.url(Service::Network).unwrap_or_default(),
        identity,
        extensions: extensions.map_err(say),
        quotas,
        subnets: subnets.map_err(|error| format!("{error:#}")),
        groups: groups.map(|groups| groups.into_iter().filter_map(role).collect()),
        agents: agents.map_err(say),
        ports,
        octavia_url: cloud.url(Service::LoadBalancer).unwrap_or_default(),
        services,
    }
}

/// The pod subnets as the controller would find them.
async fn subnets(settings: &Settings, cluster: &Known<ClusterId>, cloud: &Cloud) -> anyhow::Result<Vec<SubnetFacts>> {
    let network = cloud.network();
    let mut subnets = Vec::new();
    for name in &settings.pod_subnets {
        subnets.push(only("subnet", name, network.subnets().list(&named(name)).await?)?);
    }
    if settings.pod_subnets.is_empty() {
        let cluster = cluster.as_ref().map_err(|error| anyhow::anyhow!(error.clone()))?;
        let mark = Mark { cluster: cluster.clone(), purpose: Purpose::Base(Base::Pods) };
        subnets = network.subnets().list(&Filter::new().tags(mark.tags())).await?;
        // In the order in which the controller tries them.
        subnets.sort_by_key(|subnet| (subnet.cidr.addr().is_ipv6(), subnet.name.clone(), subnet.id));
    }
    let mut uses = BTreeMap::new();
    let networks: BTreeSet<_> = subnets.iter().map(|subnet| subnet.network_id).collect();
    for id in networks {
        // Often only administrators may ask; then it stays unknown.
        let found = network.ip_availability(id).await.unwrap_or_default();
        uses.extend(found.into_iter().map(|used| (used.subnet_id, used)));
    }
    Ok(subnets.into_iter().map(|subnet| SubnetFacts { used: uses.remove(&subnet.id), subnet }).collect())
}
