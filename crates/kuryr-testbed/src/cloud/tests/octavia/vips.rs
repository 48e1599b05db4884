use serde_json::{Value, json};

use super::{Site, id};
use crate::cloud::tests::{port, subnet};

async fn delete(site: &Site, balancer: &Value) {
    site.octavia.delete(&format!("/v2/lbaas/loadbalancers/{}?cascade=true", id(balancer))).await.expect(204);
    site.hooks().settled().await;
}

#[tokio::test]
async fn the_port_of_a_vip_comes_and_goes_with_its_load_balancer() {
    let site = Site::new().await;
    for (provider, name, owner, device) in
        [("ovn", "ovn-lb-vip", "", String::new()), ("amphora", "octavia-lb", "Octavia", "lb-".to_owned())]
    {
        let made = site.balancer(json!({ "provider": provider, "vip_address": "10.9.0.77" })).await;
        let [held] = &site.ports().await[..] else { panic!("one port") };
        assert_eq!((&held["id"], &held["device_owner"]), (&made["vip_port_id"], &json!(owner)));
        assert_eq!(held["name"], format!("{name}-{}", id(&made)));
        assert_eq!(held["device_id"], if device.is_empty() { device } else { format!("{device}{}", id(&made)) });
        assert_eq!(held["fixed_ips"], json!([{ "subnet_id": site.subnet, "ip_address": "10.9.0.77" }]));
        assert_eq!(held["project_id"], made["project_id"]);
        delete(&site, &made).await;
        assert!(site.ports().await.is_empty(), "{provider}");
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_an_error_of_the_provider() {
    let site = Site::new().await;
    site.balancer(json!({ "vip_address": "10.9.0.77" })).await;
    let taken = site.ask(json!({ "vip_address": "10.9.0.77" })).await;
    let message = format!(
        "Provider 'ovn' reports error: IP address 10.9.0.77 already allocated in subnet {}\nNeutron server returns request_ids: ['req-",
        site.subnet
    );
    assert!(taken.status == 500 && taken.fault().1.starts_with(&message), "{}", taken.body);
    let outside = site.ask(json!({ "vip_address": "192.0.2.1" })).await;
    assert!(
        outside.status == 500 && outside.fault().1.contains("is not a valid IP for the specified subnet"),
        "{}",
        outside.body
    );

    let small = subnet(&site.world.neutron, &site.network, "10.10.0.0/30").await;
    site.balancer(json!({ "vip_subnet_id": small })).await;
    let full = site.ask(json!({ "vip_subnet_id": small })).await;
    assert!(
        full.status == 500 && full.fault().1.contains("No more IP addresses available on network"),
        "{}",
        full.body
    );
    site.world.cloud.set_quota(site.hooks_project().await.as_str(), "port", 0);
    let quota = site.ask(json!({})).await;
    assert!(
        quota.status == 500 && quota.fault().1.contains("Quota exceeded for resources: ['port']."),
        "{}",
        quota.body
    );
    assert_eq!(site.hooks().all().len(), 2);
}

impl Site {
    async fn hooks_project(&self) -> String {
        self.get("/loadbalancers").await["loadbalancers"][0]["project_id"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_network_gives_the_first_subnet_that_has_room() {
    let site = Site::new().await;
    let made = site.balancer(json!({ "vip_network_id": site.network })).await;
    assert_eq!((&made["vip_subnet_id"], &made["vip_network_id"]), (&json!(site.subnet), &json!(site.network)));
    let absent = "11111111-1111-1111-1111-111111111111";
    for (body, message) in [
        (json!({ "vip_network_id": absent }), format!("Network {absent} not found.")),
        (json!({ "vip_subnet_id": absent }), format!("Subnet {absent} not found.")),
        (json!({ "vip_port_id": absent }), format!("Port {absent} not found.")),
        (json!({ "vip_network_id": site.network, "vip_subnet_id": absent }), format!("Subnet {absent} not found.")),
        (
            json!({ "vip_network_id": site.network, "vip_address": "192.0.2.1" }),
            "Validation failure: Supplied network does not contain a subnet for VIP address specified.".into(),
        ),
    ] {
        assert_eq!(site.ask(body).await.fault(), (400, message.as_str()));
    }
}

#[tokio::test]
async fn a_given_port_survives_its_load_balancer_except_on_ovn_of_zed_which_cannot_use_it() {
    for site in [Site::of_amphorae().await, Site::of_later_ovn().await] {
        let held = port(&site.world.neutron, &site.network, json!({})).await;
        let made = site.balancer(json!({ "vip_port_id": held["id"] })).await;
        assert_eq!((&made["vip_port_id"], &made["vip_address"]), (&held["id"], &held["fixed_ips"][0]["ip_address"]));
        delete(&site, &made).await;
        assert_eq!(site.ports().await.len(), 1);
    }
    let site = Site::new().await;
    let held = port(&site.world.neutron, &site.network, json!({})).await;
    let reply = site.ask(json!({ "vip_port_id": held["id"] })).await;
    assert!(reply.status == 500 && reply.fault().1.contains("already allocated in subnet"), "{}", reply.body);
    let used = port(&site.world.neutron, &site.network, json!({ "device_id": "vm" })).await;
    let message = format!("Validation failure: Port {} is already used by device vm ", id(&used));
    assert_eq!(site.ask(json!({ "vip_port_id": used["id"] })).await.fault(), (400, message.as_str()));
}

#[tokio::test]
async fn further_addresses_are_on_other_subnets_of_the_same_network() {
    for (site, answered) in [(Site::of_amphorae().await, 2), (Site::of_later_ovn().await, 2), (Site::new().await, 1)] {
        let six = subnet(&site.world.neutron, &site.network, "fd00:9::/64").await;
        let apart = crate::cloud::tests::network(&site.world.neutron, "apart").await;
        let apart = subnet(&site.world.neutron, &apart, "fd00:8::/64").await;
        let made = site.balancer(json!({ "additional_vips": [{ "subnet_id": six }] })).await;
        assert_eq!(made["additional_vips"][0]["subnet_id"], json!(six));
        assert_eq!(made["additional_vips"][0]["ip_address"].is_string(), answered == 2);
        assert_eq!(site.world.cloud.snapshot().load_balancers[0].vips.len(), answered);
        for (additional, message) in [
            (json!([{ "subnet_id": apart }]), "Validation failure: All VIP subnets must belong to the same network."),
            (
                json!([{ "subnet_id": site.subnet }]),
                "Validation failure: Duplicate VIP subnet(s) specified. Only one IP can be bound per subnet.",
            ),
        ] {
            assert_eq!(site.ask(json!({ "additional_vips": additional })).await.fault(), (400, message));
        }
        delete(&site, &made).await;
        assert!(site.ports().await.is_empty());
    }
}
