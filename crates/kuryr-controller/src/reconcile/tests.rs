//! The steps of one pod against a Neutron and an API server in memory.

use super::*;
use crate::{
    config::ControllerConfig,
    fake::{Api as FakeApi, Fate, Neutron, Trouble, keeper, topology, vif},
    policy::PodFacts,
};
use http::Method;
use prometheus_client::registry::Registry;

struct World {
    neutron: Neutron,
    api: FakeApi,
    reconciler: Reconciler,
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

fn pod(name: &str) -> Pod {
    let node = Some("node0".to_owned());
    let uid = PodUid(format!("u-{name}"));
    Pod { key: key(name), uid, node, host_network: false, completed: false, deleting: false }
}

impl World {
    async fn new() -> Self {
        let (neutron, api) = (Neutron::start().await, FakeApi::default());
        let config = ControllerConfig::new("ours".into(), "us".into());
        let metrics = Metrics::new(&mut Registry::default());
        let (policies, index) = (keeper(), Arc::<Index>::default());
        let cloud = neutron.cloud().await;
        let allocator = Allocator::start(cloud, topology(), &config, metrics.clone(), policies.clone(), index.clone());
        allocator.resynced([]);
        let client = api.client();
        let reconciler = Reconciler {
            events: Events::new(client.clone(), "us"),
            client,
            index,
            queue: Arc::new(Queue::new()),
            allocator,
            policies,
            metrics,
            cooldown: Duration::ZERO,
            waiting: Mutex::default(),
            refusals: Mutex::default(),
            began: Instant::now(),
        };
        Self { neutron, api, reconciler }
    }

    async fn step(&self, name: &str) -> Outcome {
        self.reconciler.reconcile(&key(name)).await
    }

    fn see(&self, pod: Pod) {
        self.reconciler.policies.pod(&self.reconciler.index, &pod, PodFacts::default());
        self.reconciler.index.apply_pod(pod);
    }

    fn lose(&self, name: &str) {
        self.reconciler.policies.pods_gone([key(name)]);
        self.reconciler.index.remove_pod(&key(name));
    }

    /// The port that a `KuryrPort` names.
    fn named(&self, name: &str) -> Option<String> {
        let port = self.api.port(name)?["spec"]["vifs"][0]["portId"].as_str().map(str::to_owned);
        port.filter(|port| self.neutron.ports().contains(port))
    }

    fn condition(&self, name: &str) -> String {
        let port = self.api.port(name).unwrap();
        let condition = &port["status"]["conditions"][0];
        format!(
            "{} {}",
            condition["status"].as_str().unwrap_or_default(),
            condition["reason"].as_str().unwrap_or_default()
        )
    }
}

fn failed(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Retry(_))
}

#[tokio::test]
async fn a_pod_gets_a_port_and_gives_it_back() {
    let world = World::new().await;
    world.see(pod("web"));
    assert_eq!(world.step("web").await, Outcome::Settled);
    assert!(world.named("web").is_some());
    assert_eq!(world.neutron.take_log(), ["POST 1"]);
    world.lose("web");
    // Deleted, then, for there is no node, released.
    for _ in 0..3 {
        assert_eq!(world.step("web").await, Outcome::Settled);
    }
    assert!(world.api.port("web").is_none());
    assert_eq!((world.neutron.take_log(), world.neutron.ports().len()), (vec!["DELETE".to_owned()], 0));
}

#[tokio::test]
async fn a_pod_that_goes_after_a_lost_answer_leaves_no_port() {
    let world = World::new().await;
    world.see(pod("web"));
    world.neutron.next(&[Fate::Lost]);
    assert!(failed(world.step("web").await));
    assert_eq!(world.neutron.ports().len(), 1);
    world.lose("web");
    let outcome = world.step("web").await;
    assert!(matches!(outcome, Outcome::After(time) if time > Duration::from_secs(60)), "{outcome:?}");
    assert_eq!(world.neutron.ports().len(), 0);
    // Until then nobody has to be asked again.
    world.neutron.take_log();
    world.step("web").await;
    assert_eq!(world.neutron.take_log(), [""; 0]);
}

#[tokio::test]
async fn a_pod_whose_create_may_come_late_is_looked_at_again() {
    let world = World::new().await;
    world.see(pod("web"));
    world.neutron.next(&[Fate::Late]);
    assert!(failed(world.step("web").await));
    let outcome = world.step("web").await;
    assert!(matches!(outcome, Outcome::After(time) if time > Duration::from_secs(60)), "{outcome:?}");
    world.neutron.carry_out();
    let named = world.named("web").unwrap();
    assert_eq!(world.neutron.ports().len(), 2);
    world.step("web").await;
    assert_eq!(world.named("web"), Some(named), "the one that is in use stays");
}

#[tokio::test]
async fn a_port_in_use_outlives_a_refused_status() {
    let world = World::new().await;
    world.see(pod("web"));
    world.neutron.set_quota(0);
    assert!(failed(world.step("web").await));
    assert_eq!(world.condition("web"), "False QuotaExceeded");
    world.neutron.set_quota(1);
    world.reconciler.allocator.release(&vif("00000000-0000-0000-0001-000000009999")).await.unwrap();
    world.api.trouble(Method::PATCH, "/status", Trouble::Refused(403), 1);
    assert_eq!(world.step("web").await, Outcome::Settled);
    let named = world.named("web").unwrap();
    assert!(failed(world.step("web").await), "the status");
    assert_eq!((world.named("web"), world.condition("web")), (Some(named.clone()), "False QuotaExceeded".to_owned()));
    // It heals.
    assert_eq!(world.step("web").await, Outcome::Settled);
    assert_eq!((world.named("web"), world.condition("web")), (Some(named), "True Allocated".to_owned()));
}

#[tokio::test]
async fn a_namespace_that_takes_no_kuryr_port_costs_one_port_and_no_more() {
    let world = World::new().await;
    world.api.trouble(Method::POST, "/kuryrports", Trouble::Refused(403), 2);
    for name in ["web", "db"] {
        world.see(pod(name));
    }
    for _ in 0..3 {
        for name in ["web", "db"] {
            assert!(failed(world.step(name).await));
        }
    }
    assert_eq!(world.neutron.take_log(), ["POST 1", "DELETE"]);
    assert_eq!(world.reconciler.waiting.lock().reasons().collect::<Vec<_>>(), ["KubernetesRefused"; 2]);
    // One that is deleted makes room: the KuryrPort comes first, and is refused once more, without a port.
    world.reconciler.refusals.lock().freed("shop", world.reconciler.began.elapsed());
    assert!(failed(world.step("web").await));
    assert_eq!(world.neutron.take_log(), [""; 0]);
    world.api.calm();
    world.reconciler.refusals.lock().freed("shop", world.reconciler.began.elapsed());
    for name in ["web", "db"] {
        assert_eq!(world.step(name).await, Outcome::Settled);
        assert!(world.named(name).is_some());
    }
}

#[tokio::test]
async fn a_port_is_kept_for_a_kuryr_port_that_nobody_has_told_of_yet() {
    let world = World::new().await;
    world.see(pod("web"));
    world.api.trouble(Method::POST, "/kuryrports", Trouble::Lost, 1);
    assert!(failed(world.step("web").await));
    assert!(world.named("web").is_some());
    // The pod goes while a sandbox may have plugged the port, and the watch lags.
    world.lose("web");
    world.step("web").await;
    assert!(world.named("web").is_some(), "deleted under a sandbox");
    // From then on it goes the usual way.
    for _ in 0..4 {
        world.step("web").await;
    }
    assert!(world.api.port("web").is_none());
    assert_eq!(world.neutron.ports().len(), 0);
}

#[tokio::test]
async fn a_pod_that_ends_while_it_waits_is_counted_no_more() {
    let world = World::new().await;
    world.see(pod("job"));
    world.neutron.set_quota(0);
    assert!(failed(world.step("job").await));
    assert_eq!(world.reconciler.waiting.lock().reasons().count(), 1);
    world.see(Pod { completed: true, ..pod("job") });
    for _ in 0..4 {
        world.step("job").await;
    }
    assert_eq!(world.reconciler.waiting.lock().reasons().count(), 0);
}

#[tokio::test]
async fn as_many_are_woken_as_there_is_room_for() {
    let world = World::new().await;
    world.see(pod("web"));
    assert_eq!(world.step("web").await, Outcome::Settled);
    world.neutron.set_quota(1);
    for n in 0..10 {
        world.see(pod(&format!("waits-{n}")));
        assert!(failed(world.step(&format!("waits-{n}")).await));
    }
    world.lose("web");
    for _ in 0..2 {
        world.step("web").await;
    }
    let first = timeout(Duration::from_secs(1), world.reconciler.queue.next()).await.unwrap().0;
    let second = timeout(Duration::from_secs(1), world.reconciler.queue.next()).await.unwrap().0;
    assert!([&first, &second].contains(&&key("waits-0")), "{first} and {second}");
    assert!(timeout(Duration::from_millis(50), world.reconciler.queue.next()).await.is_err(), "more are woken");
}
