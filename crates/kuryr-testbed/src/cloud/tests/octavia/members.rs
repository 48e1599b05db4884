use serde_json::{Value, json};

use super::{Site, id, service};

struct Pool {
    site: Site,
    balancer: Value,
    path: String,
}

impl Pool {
    async fn new(members: &[&str]) -> Self {
        let site = Site::new().await;
        let balancer = site.balancer(json!({ "listeners": [service("TCP", 80, members)] })).await;
        let path = format!("/v2/lbaas/pools/{}/members", id(&balancer["pools"][0]));
        Self { site, balancer, path }
    }

    async fn put(&self, query: &str, members: Value) {
        let path = format!("{}{query}", self.path);
        self.site.octavia.put(&path, &json!({ "members": members })).await.expect(202);
        self.site.hooks().settled().await;
    }

    /// Address, weight and name of each.
    async fn members(&self) -> Vec<String> {
        let mut list = self.site.octavia.get(&self.path).await.expect(200)["members"].take();
        let one = |member: &Value| {
            format!("{} {} {}", member["address"].as_str().unwrap(), member["weight"], member["name"].as_str().unwrap())
        };
        let mut members: Vec<String> = list.as_array_mut().unwrap().iter().map(one).collect();
        members.sort();
        members
    }

    fn live(&self) -> Vec<String> {
        let seen = self.site.world.cloud.snapshot().load_balancers;
        let mut live: Vec<String> =
            seen[0].listeners[0].members.iter().map(|member| member.address.to_string()).collect();
        live.sort();
        live
    }
}

fn member(address: &str) -> Value {
    json!({ "address": address, "protocol_port": 8080 })
}

#[tokio::test]
async fn a_batch_makes_the_members_those_that_it_names() {
    let pool = Pool::new(&["10.9.0.5", "10.9.0.6"]).await;
    let before = pool.site.get(&format!("/pools/{}", id(&pool.balancer["pools"][0]))).await;
    let mut kept = member("10.9.0.6");
    kept["weight"] = json!(7);
    kept["backup"] = json!(true);
    pool.put("", json!([kept, member("10.9.0.7")])).await;
    assert_eq!(pool.members().await, ["10.9.0.6 7 10.9.0.6", "10.9.0.7 1 "]);
    assert_eq!(pool.live(), ["10.9.0.6", "10.9.0.7"]);
    let after = pool.site.get(&format!("/pools/{}", id(&pool.balancer["pools"][0]))).await;
    assert!(
        before["pool"]["members"].as_array().unwrap().contains(&after["pool"]["members"][0]),
        "who stays keeps the id"
    );
    pool.put("", json!([member("10.9.0.6"), member("10.9.0.7")])).await;
    assert_eq!(pool.members().await[0], "10.9.0.6 1 10.9.0.6", "a weight that is not named is 1, a name stays");
    pool.put("", json!([])).await;
    assert!(pool.members().await.is_empty() && pool.live().is_empty());
    let state = pool.site.hooks().all()[0].provisioning_status;
    pool.put("", json!([])).await;
    assert_eq!(state, "ACTIVE", "nothing to do locks nothing");
}

#[tokio::test]
async fn an_additive_batch_leaves_the_others() {
    let pool = Pool::new(&["10.9.0.5"]).await;
    pool.put("?additive_only=true", json!([member("10.9.0.6")])).await;
    assert_eq!(pool.live(), ["10.9.0.5", "10.9.0.6"]);
}

#[tokio::test]
async fn a_batch_with_one_wrong_member_changes_nothing() {
    let pool = Pool::new(&["10.9.0.5"]).await;
    let absent = "11111111-1111-1111-1111-111111111111";
    let mut elsewhere = member("10.9.0.7");
    elsewhere["subnet_id"] = json!(absent);
    let mut watched = member("10.9.0.7");
    watched["monitor_port"] = json!(9);
    let message = format!("Subnet {absent} not found.");
    for (wrong, status, text) in [
        (elsewhere, 400, message.as_str()),
        (member("169.254.169.254"), 400, "169.254.169.254 is not a valid option for member address"),
        (watched, 501, "monitor address or port"),
        (member("192.0.2.1"), 501, "Subnet is required"),
        (member("fd00::1"), 501, "mixing IPv4/IPv6"),
    ] {
        let reply = pool.site.octavia.put(&pool.path, &json!({ "members": [member("10.9.0.6"), wrong] })).await;
        assert!(reply.status == status && reply.fault().1.contains(text), "{}", reply.body);
        assert_eq!(pool.members().await, ["10.9.0.5 1 10.9.0.5"]);
        assert_eq!(pool.site.hooks().all()[0].provisioning_status, "ACTIVE");
    }
    let twice =
        pool.site.octavia.put(&pool.path, &json!({ "members": [member("10.9.0.6"), member("10.9.0.6")] })).await;
    assert_eq!(twice.fault(), (409, "Another member on this pool is already using ip 10.9.0.6 on protocol_port 8080"));
}

#[tokio::test]
async fn a_member_is_made_changed_and_deleted() {
    let pool = Pool::new(&[]).await;
    let mut body = member("10.9.0.5");
    body["tags"] = json!(["t"]);
    let made = pool.site.octavia.post(&pool.path, &json!({ "member": body })).await.expect(201)["member"].take();
    assert_eq!(
        (&made["provisioning_status"], &made["operating_status"], &made["tags"]),
        (&json!("PENDING_CREATE"), &json!("NO_MONITOR"), &json!(["t"]))
    );
    pool.site.hooks().settled().await;
    let again = pool.site.octavia.post(&pool.path, &json!({ "member": member("10.9.0.5") })).await;
    assert_eq!(again.fault(), (409, "Another member on this pool is already using ip 10.9.0.5 on protocol_port 8080"));
    let path = format!("{}/{}", pool.path, id(&made));
    let changed =
        pool.site.octavia.put(&path, &json!({ "member": { "weight": 0, "admin_state_up": null } })).await.expect(200);
    assert_eq!((&changed["member"]["weight"], &changed["member"]["admin_state_up"]), (&json!(0), &json!(false)));
    pool.site.hooks().settled().await;
    assert_eq!(pool.site.octavia.get(&path).await.expect(200)["member"]["operating_status"], "OFFLINE");
    let fixed = pool.site.octavia.put(&path, &json!({ "member": { "address": "10.9.0.9" } })).await;
    assert_eq!(fixed.fault(), (400, "Unknown attribute for argument member_.member: address"));
    pool.site.octavia.delete(&path).await.expect(204);
    pool.site.hooks().settled().await;
    assert_eq!(pool.site.octavia.get(&path).await.fault(), (404, format!("Member {} not found.", id(&made)).as_str()));
}

#[tokio::test]
async fn a_member_that_is_still_on_its_way_outlives_the_batch_that_leaves_it_out() {
    // The OVN provider says ACTIVE after the first member of a batch, and forgets what it has not made yet.
    let site = Site::with(super::gradual("ovn")).await;
    let balancer = site.balancer(json!({ "listeners": [service("TCP", 80, &[])] })).await;
    let path = format!("/v2/lbaas/pools/{}/members", id(&balancer["pools"][0]));
    let batch =
        |members: &[&str]| json!({ "members": members.iter().map(|address| member(address)).collect::<Vec<_>>() });
    site.octavia.put(&path, &batch(&["10.9.0.5", "10.9.0.6"])).await.expect(202);
    site.hold_when_active().await;
    assert!(site.hooks().all()[0].busy, "the second member is not there yet");
    site.octavia.put(&path, &batch(&["10.9.0.5"])).await.expect(202);
    site.release().await;
    let members = site.octavia.get(&path).await.expect(200)["members"].take();
    assert_eq!(members.as_array().unwrap().len(), 2, "{members}");
}
