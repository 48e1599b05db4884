//! A trunk of the embedded Neutron, and those who write it.

use axum::http::Method;
use kuryr_controller::trunks::{TrunkError, Trunks};
use kuryr_model::{NetworkId, PortId, SegmentationId, TrunkId};
use kuryr_openstack::{
    Cloud, CloudConfig, Network,
    network::{NewPort, NewSubnet, NewTrunk, networks::NewNetwork},
};
use kuryr_testbed::cloud::{Cloud as EmbeddedCloud, Config, HostKind, Server};
use std::{collections::BTreeMap, time::Duration};

const LINGER: Duration = Duration::from_millis(5);

pub(crate) struct World {
    pub(crate) cloud: EmbeddedCloud,
    _server: Server,
    pub(crate) neutron: Network,
    pub(crate) network: NetworkId,
    pub(crate) trunk: TrunkId,
}

impl World {
    pub(crate) async fn new() -> Self {
        let mut config = Config::default();
        config.quotas.set("port", -1);
        let cloud = EmbeddedCloud::new(config);
        cloud.add_host("compute-1", HostKind::Ovs);
        let server = cloud.serve(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
        let settings = cloud.config();
        let (user, password, project) = (&settings.user, &settings.password, &settings.projects[1]);
        let login = CloudConfig::password(&server.auth_url(), user, password, project, "Default");
        let neutron = Cloud::connect(login).await.unwrap().network();
        let network = neutron.networks().create(&NewNetwork::default()).await.unwrap().id;
        let subnet = NewSubnet {
            network_id: network,
            ip_version: 4,
            cidr: "10.0.0.0/16".parse().ok(),
            subnetpool_id: None,
            name: String::new(),
            description: String::new(),
            enable_dhcp: false,
            gateway_ip: None,
            allocation_pools: Vec::new(),
        };
        neutron.subnets().create(&subnet).await.unwrap();
        let mut world = Self { cloud, _server: server, neutron, network, trunk: TrunkId(uuid::Uuid::nil()) };
        world.trunk = world.new_trunk().await;
        world
    }

    pub(crate) async fn new_trunk(&self) -> TrunkId {
        let parent = self.ports(1).await[0];
        self.neutron.trunks().create(&NewTrunk { name: "vm".into(), port_id: parent }).await.unwrap().id
    }

    pub(crate) async fn ports(&self, count: usize) -> Vec<PortId> {
        let new = vec![NewPort::new(self.network); count];
        self.neutron.ports().create_many(&new).await.unwrap().into_iter().map(|port| port.id).collect()
    }

    pub(crate) fn trunks(&self) -> Trunks {
        Trunks::new(self.neutron.clone(), LINGER)
    }

    pub(crate) async fn carried(&self) -> BTreeMap<PortId, u32> {
        let trunk = self.neutron.trunks().get(self.trunk).await.unwrap();
        trunk.sub_ports.iter().map(|subport| (subport.port_id, subport.segmentation_id)).collect()
    }

    /// How many requests changed subports since the log was cleared.
    pub(crate) fn changes(&self) -> usize {
        let calls = self.cloud.calls().all();
        calls.iter().filter(|call| call.method == Method::PUT && call.path.contains("_subports")).count()
    }
}

pub(crate) async fn place_all(
    trunks: &Trunks,
    trunk: TrunkId,
    ports: &[PortId],
) -> Vec<Result<SegmentationId, TrunkError>> {
    futures::future::join_all(ports.iter().map(|port| trunks.place(trunk, *port))).await
}

pub(crate) fn ids(placed: Vec<Result<SegmentationId, TrunkError>>) -> Vec<u32> {
    placed.into_iter().map(|id| id.unwrap().get().into()).collect()
}
