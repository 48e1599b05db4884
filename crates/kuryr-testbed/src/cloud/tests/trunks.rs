//! What of trunks only whoever runs a cloud can bring about, and what its API says to nonsense.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{World, id, network, port, subnet};
use crate::cloud::{HostKind, PortStatus, TrunkStatus};

struct Trunk {
    world: World,
    network: String,
    parent: String,
    id: String,
}

impl Trunk {
    async fn new() -> Self {
        let world = World::new().await;
        world.cloud.add_host("node-1", HostKind::Ovs);
        let network = network(&world.neutron, "n").await;
        subnet(&world.neutron, &network, "10.1.0.0/24").await;
        let parent = id(&port(&world.neutron, &network, json!({ "binding:host_id": "node-1" })).await);
        let body = json!({ "trunk": { "port_id": parent } });
        let id = id(&world.neutron.post("/v2.0/trunks", &body).await.expect(201)["trunk"]);
        Self { world, network, parent, id }
    }

    async fn port(&self) -> String {
        id(&port(&self.world.neutron, &self.network, json!({})).await)
    }

    async fn change(&self, verb: &str, subports: &Value) -> super::client::Reply {
        let path = format!("/v2.0/trunks/{}/{verb}_subports", self.id);
        self.world.neutron.put(&path, &json!({ "sub_ports": subports })).await
    }

    async fn status(&self) -> Value {
        let path = format!("/v2.0/trunks/{}", self.id);
        self.world.neutron.get(&path).await.expect(200)["trunk"]["status"].take()
    }

    async fn status_of(&self, port: &str) -> Value {
        self.world.neutron.get(&format!("/v2.0/ports/{port}")).await.expect(200)["port"]["status"].take()
    }
}

fn subport(port: &str, segment: &Value) -> Value {
    json!({ "port_id": port, "segmentation_type": "vlan", "segmentation_id": segment })
}

#[tokio::test]
async fn a_trunk_in_error_takes_no_subports_until_some_are_removed() {
    let trunk = Trunk::new().await;
    let (one, two) = (trunk.port().await, trunk.port().await);
    trunk.change("add", &json!([subport(&one, &json!(7))])).await.expect(200);
    assert!(trunk.world.cloud.set_trunk_status(trunk.id.parse().unwrap(), TrunkStatus::Error));
    assert_eq!(trunk.change("add", &json!([subport(&two, &json!(8))])).await.error(), (409, "TrunkInErrorState"));
    // What is wrong with the subports themselves is said first, but for ids in use.
    assert_eq!(trunk.change("add", &json!([subport(&one, &json!(8))])).await.error(), (409, "TrunkPortInUse"));
    assert_eq!(trunk.change("add", &json!([subport(&two, &json!(7))])).await.error(), (409, "TrunkInErrorState"));
    trunk.change("remove", &json!([{ "port_id": one }])).await.expect(200);
    assert_eq!(trunk.status().await, "ACTIVE");
    trunk.change("add", &json!([subport(&two, &json!(7))])).await.expect(200);
    assert!(!trunk.world.cloud.set_trunk_status(Uuid::nil(), TrunkStatus::Build));
}

#[tokio::test]
async fn a_trunk_that_is_switched_off_changes_nothing_but_itself() {
    let trunk = Trunk::new().await;
    let (neutron, path) = (&trunk.world.neutron, format!("/v2.0/trunks/{}", trunk.id));
    let one = trunk.port().await;
    trunk.change("add", &json!([subport(&one, &json!(7))])).await.expect(200);
    neutron.put(&path, &json!({ "trunk": { "admin_state_up": false } })).await.expect(200);
    let two = trunk.port().await;
    assert_eq!(trunk.change("add", &json!([subport(&two, &json!(8))])).await.error(), (409, "TrunkDisabled"));
    assert_eq!(trunk.change("remove", &json!([{ "port_id": one }])).await.error(), (409, "TrunkDisabled"));
    assert_eq!(neutron.delete(&path).await.error(), (409, "TrunkDisabled"));
    neutron.put(&path, &json!({ "trunk": { "admin_state_up": true } })).await.expect(200);
    neutron.delete(&path).await.expect(204);
}

#[tokio::test]
async fn subports_are_up_and_down_with_their_parent() {
    let trunk = Trunk::new().await;
    let (one, two) = (trunk.port().await, trunk.port().await);
    trunk.change("add", &json!([subport(&one, &json!(7))])).await.expect(200);
    assert_eq!(trunk.status_of(&one).await, "DOWN");
    trunk.world.cloud.set_port_status(trunk.parent.parse().unwrap(), PortStatus::Active);
    trunk.change("add", &json!([subport(&two, &json!(8))])).await.expect(200);
    assert_eq!((trunk.status_of(&one).await, trunk.status_of(&two).await), (json!("ACTIVE"), json!("ACTIVE")));
    let unbind = json!({ "port": { "binding:host_id": "" } });
    trunk.world.neutron.put(&format!("/v2.0/ports/{}", trunk.parent), &unbind).await.expect(200);
    assert_eq!((trunk.status_of(&one).await, trunk.status().await), (json!("DOWN"), json!("DOWN")));
}

#[tokio::test]
async fn a_port_whose_host_knows_no_trunks_is_no_parent() {
    let trunk = Trunk::new().await;
    let World { cloud, neutron, .. } = &trunk.world;
    cloud.add_host("tap-1", HostKind::Tap);
    let bound = id(&port(neutron, &trunk.network, json!({ "binding:host_id": "tap-1" })).await);
    let reply = neutron.post("/v2.0/trunks", &json!({ "trunk": { "port_id": bound } })).await;
    assert_eq!(reply.error(), (409, "ParentPortInUse"));
}

#[tokio::test]
async fn nonsense_is_refused_with_its_reason() {
    let trunk = Trunk::new().await;
    let (one, two) = (trunk.port().await, trunk.port().await);
    let good = |port: &str| subport(port, &json!(7));
    for (list, words) in [
        (json!("x"), "'x' is not a list"),
        (json!([7]), "'7' is not a dict"),
        (json!([{}]), "A valid port UUID must be specified"),
        (json!([{ "port_id": "x" }]), "Invalid UUID for subport: 'x'"),
        (json!([good(&one), good(&one)]), "Non unique UUID"),
        (json!([good(&one), good(&two)]), "is not unique"),
        (json!([{ "port_id": one, "segmentation_id": 7 }]), "missing segmentation information"),
        (json!([{ "port_id": one }]), "missing segmentation information"),
        (json!([subport(&one, &json!("seven"))]), "'seven' is not an integer"),
        (json!([subport(&one, &json!(4095))]), "'4095' is not in range"),
        (json!([subport(&one, &json!(0))]), "'0' is not in range"),
        (json!([{ "port_id": one, "segmentation_type": "vxlan", "segmentation_id": 7 }]), "Unknown segmentation_type"),
    ] {
        let reply = trunk.change("add", &list).await;
        assert_eq!(reply.error(), (400, "InvalidInput"), "{list}");
        assert!(reply.message().contains(words), "{list}: {}", reply.message());
    }
    let body = json!({ "trunk": { "port_id": two, "sub_ports": [{}] } });
    assert_eq!(trunk.world.neutron.post("/v2.0/trunks", &body).await.error(), (400, "HTTPBadRequest"));
    trunk.change("add", &json!([subport(&one, &json!("7"))])).await.expect(200);
}
