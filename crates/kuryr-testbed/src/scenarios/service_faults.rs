//! Octavia misbehaves, or what Kuryr made there is changed behind its back. What is asked each time: the Service waits with a
//! reason and works when it is over, others go on, and nothing is lost or made twice.

use super::services::{all_answer, client, come_to_answer, names};
use crate::{
    cloud::{Cloud, Fault, LoadBalancerState, Service},
    world::{Backend, Services, World, cluster_ip, pods::PATIENCE},
};
use anyhow::{Context, ensure};
use futures::future::try_join_all;
use http::Method;
use kuryr_model::{KuryrLoadBalancer, NetworkId};
use kuryr_openstack::network::{NewFixedIp, NewFloatingIp, NewPort};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// Where load balancers are made and listed.
const BALANCERS: &str = "/v2/lbaas/loadbalancers";

/// Time between two looks at everything, for scenarios that wait for one.
const LOOKS: &str = "prune_interval = \"2s\"";

/// All load balancers that are there for a Service of the scenario's namespace.
fn made_for(world: &World, service: &str) -> anyhow::Result<Vec<LoadBalancerState>> {
    let name = format!("{}/{service}", world.namespace());
    Ok(world.inside()?.cloud.load_balancing().all().into_iter().filter(|one| one.name == name).collect())
}

fn only(world: &World, service: &str) -> anyhow::Result<LoadBalancerState> {
    let mut all = made_for(world, service)?;
    ensure!(all.len() == 1, "there are {} load balancers for {service}: {all:?}", all.len());
    all.pop().context("there is none")
}

/// A Service that waits and says why.
pub(super) fn waits_with(reason: &'static str) -> impl Fn(Option<&KuryrLoadBalancer>) -> bool {
    move |held| {
        let ready = held.and_then(KuryrLoadBalancer::ready);
        ready.is_some_and(|ready| ready.status == "False" && ready.reason == reason)
    }
}

/// What all these stories begin with: two pods that serve, and one that asks.
struct Cast {
    backends: Vec<Backend>,
    from: PathBuf,
}

impl Cast {
    async fn new(world: &World) -> anyhow::Result<Self> {
        // No fault is to strike the load balancer that Kubernetes' own Service gets at the very beginning.
        Services::new(&world.client, "default").ready("kubernetes", 1).await?;
        let (backends, from) = tokio::try_join!(world.backends("web", 0..2), client(world))?;
        Ok(Self { backends, from })
    }

    fn names(&self) -> BTreeSet<String> {
        names(&self.backends)
    }

    /// A Service in front of the two.
    async fn ask(&self, world: &World, name: &str, more: Value) -> anyhow::Result<IpAddr> {
        let mut spec = json!({"selector": {"app": "web"}});
        json_patch::merge(&mut spec, &more);
        cluster_ip(&world.services().create(name, spec).await?)
    }

    /// It works, by one load balancer.
    async fn serves(&self, world: &World, name: &str, ip: IpAddr) -> anyhow::Result<()> {
        world.services().ready(name, 2).await?;
        only(world, name)?;
        self.reach(&self.from, ip).await
    }

    async fn reach(&self, from: &Path, ip: IpAddr) -> anyhow::Result<()> {
        all_answer(from, SocketAddr::new(ip, 80), &self.names()).await
    }
}

/// Services are made, scaled and deleted while calls to Octavia that change something fail in some way for a few times.
async fn live_despite(world: &World, fault: Fault) -> anyhow::Result<()> {
    let cast = Cast::new(world).await?;
    let faults = world.inside()?.cloud.faults().clone();
    let changes = |call: &crate::cloud::Call| call.method != Method::GET;
    let id = faults.add(fault.service(Service::LoadBalancer).when(changes));
    let ips = try_join_all(["web", "api"].map(|name| cast.ask(world, name, json!({})))).await?;
    for (name, ip) in ["web", "api"].into_iter().zip(ips) {
        cast.serves(world, name, ip).await?;
    }
    ensure!(faults.hits(id) > 0, "the fault never struck");
    Ok(())
}

pub(super) async fn octavia_answers_500(world: &mut World) -> anyhow::Result<()> {
    live_despite(world, Fault::internal_error().times(4)).await
}

pub(super) async fn octavia_answers_409(world: &mut World) -> anyhow::Result<()> {
    let message = "Load Balancer 5ad1d3a5-1b25-4c6a-a5a4-5f8c1d1b0c11 is immutable and cannot be updated.";
    live_despite(world, Fault::answer(409, "", message).times(6)).await
}

pub(super) async fn the_answer_of_a_new_load_balancer_is_lost(world: &mut World) -> anyhow::Result<()> {
    live_despite(world, Fault::lose_answer().times(3)).await
}

pub(super) async fn octavia_hangs(world: &mut World) -> anyhow::Result<()> {
    let cast = Cast::new(world).await?;
    let faults = world.inside()?.cloud.faults().clone();
    let id = faults.add(Fault::hang().service(Service::LoadBalancer).on(Method::POST, BALANCERS).times(1));
    let ip = cast.ask(world, "web", json!({})).await?;
    tokio::time::timeout(PATIENCE, faults.wait_for_hits(id, 1)).await.context("the fault never struck")?;
    let other = cast.ask(world, "other", json!({})).await?;
    cast.serves(world, "other", other).await.context("another Service meanwhile")?;
    // The call is given up after a minute and made again.
    cast.serves(world, "web", ip).await?;
    faults.remove(id);
    only(world, "web").map(drop)
}

pub(super) async fn a_load_balancer_is_immutable_for_long(world: &mut World) -> anyhow::Result<()> {
    let mut cast = Cast::new(world).await?;
    let cloud = world.inside()?.cloud.clone();
    cloud.load_balancing().hold_new(true);
    let ip = cast.ask(world, "web", json!({})).await?;
    let pending = |held: Option<&KuryrLoadBalancer>| {
        held.and_then(|held| held.status.as_ref()).is_some_and(|status| !status.load_balancers.is_empty())
    };
    world.services().when("web", "begun", PATIENCE, pending).await?;
    cloud.load_balancing().hold_new(false);
    // Meanwhile its endpoints change, several times: that is one change when it may be changed again.
    cast.backends.extend(world.backends("web", 2..4).await?);
    let gone = cast.backends.remove(0);
    world.pods().delete(&gone.name()).await?;
    world.pods().gone(&gone.name()).await?;
    cast.backends.extend(world.backends("web", 4..6).await?);
    let calls = cloud.calls();
    let writes =
        || calls.writes(Service::LoadBalancer).into_iter().filter(|call| call.path.ends_with("/members")).count();
    let before = writes();
    ensure!(cloud.load_balancing().release(only(world, "web")?.id), "the load balancer is gone");
    world.services().ready("web", 5).await?;
    only(world, "web")?;
    // The first tree had the one that is gone; packets may see a moment later that it is no member any more.
    come_to_answer(&cast.from, SocketAddr::new(ip, 80), &cast.names()).await?;
    ensure!(writes() - before <= 2, "{} changes of members for what changed meanwhile", writes() - before);
    Ok(())
}

pub(super) async fn the_quota_of_load_balancers_is_used_up(world: &mut World) -> anyhow::Result<()> {
    let cast = Cast::new(world).await?;
    let inside = world.inside()?;
    let first = cast.ask(world, "first", json!({})).await?;
    cast.serves(world, "first", first).await?;
    let used = i64::try_from(inside.cloud.load_balancing().all().len())?;
    inside.set_load_balancing_quota("load_balancer", used)?;
    let second = cast.ask(world, "second", json!({})).await?;
    let services = world.services();
    services.when("second", "waiting with its reason", PATIENCE, waits_with("QuotaExceeded")).await?;
    world.told("second", "QuotaExceeded").await?;
    cast.reach(&cast.from, first).await.context("another Service meanwhile")?;
    // What another one gives back is taken at once.
    services.delete("first").await?;
    cast.serves(world, "second", second).await?;
    // And so is what the cloud's operator gives, when it is tried again.
    let third = cast.ask(world, "third", json!({})).await?;
    services.when("third", "waiting with its reason", PATIENCE, waits_with("QuotaExceeded")).await?;
    inside.set_load_balancing_quota("load_balancer", -1)?;
    cast.serves(world, "third", third).await
}

fn external_network(world: &World) -> anyhow::Result<NetworkId> {
    let snapshot = world.inside()?.cloud.snapshot();
    let network = snapshot.networks.values().find(|network| network.external).context("no external network")?;
    Ok(NetworkId(network.id))
}

pub(super) async fn no_address_is_left_outside(world: &mut World) -> anyhow::Result<()> {
    let cast = Cast::new(world).await?;
    let network = external_network(world)?;
    // All that there are but none are somebody else's.
    let network_api = world.cloud.network();
    let mut theirs = Vec::new();
    loop {
        let new = NewFloatingIp { description: "somebody else's".to_owned(), ..NewFloatingIp::new(network) };
        match network_api.floating_ips().create(&new).await {
            Ok(floating) => theirs.push(floating.id),
            Err(_) => break,
        }
    }
    ensure!(theirs.len() > 200, "there were only {} addresses", theirs.len());
    let ip = cast.ask(world, "web", json!({"type": "LoadBalancer"})).await?;
    world.services().when("web", "waiting with its reason", PATIENCE, waits_with("NoFreeAddress")).await?;
    world.told("web", "NoFreeAddress").await?;
    cast.reach(&cast.from, ip).await.context("its clusterIP meanwhile")?;
    for id in theirs {
        network_api.floating_ips().delete(id).await?;
    }
    let outside = world.services().ingress("web").await?;
    world.services().ready("web", 2).await?;
    cast.reach(&world.outside(), outside).await
}

pub(super) async fn a_cluster_ip_is_taken_by_somebody_else(world: &mut World) -> anyhow::Result<()> {
    let cast = Cast::new(world).await?;
    let taken: IpAddr = "10.96.77.7".parse()?;
    let snapshot = world.inside()?.cloud.snapshot();
    let subnet = snapshot.subnets.values().find(|subnet| subnet.cidr.contains(&taken)).context("no service subnet")?;
    let fixed = NewFixedIp { ip_address: Some(taken), ..NewFixedIp::from(kuryr_model::SubnetId(subnet.id)) };
    let new = NewPort { name: "theirs".into(), fixed_ips: vec![fixed], ..NewPort::new(NetworkId(subnet.network)) };
    let port = world.cloud.network().ports().create(&new).await?;
    let ip = cast.ask(world, "web", json!({"clusterIP": taken.to_string()})).await?;
    let other = cast.ask(world, "other", json!({})).await?;
    world.services().when("web", "waiting with its reason", PATIENCE, waits_with("VipTaken")).await?;
    world.told("web", "VipTaken").await?;
    cast.serves(world, "other", other).await?;
    world.cloud.network().ports().delete(port.id).await?;
    // What is deleted of ours may have made room.
    world.services().delete("other").await?;
    cast.serves(world, "web", ip).await
}

pub(super) async fn a_load_balancer_goes_error(world: &mut World) -> anyhow::Result<()> {
    replaced_after(world, |cloud, id| cloud.load_balancing().fail(id)).await
}

/// Something happens to a Service's load balancer, which is then made anew at the same addresses.
async fn replaced_after(world: &mut World, harm: impl FnOnce(&Cloud, Uuid) -> bool) -> anyhow::Result<()> {
    let cast = Cast::new(world).await?;
    world.use_controller_settings(LOOKS).await?;
    let ip = cast.ask(world, "web", json!({"type": "LoadBalancer"})).await?;
    cast.serves(world, "web", ip).await?;
    let outside = world.services().ingress("web").await?;
    let old = only(world, "web")?;
    ensure!(harm(&world.inside()?.cloud, old.id), "there is no load balancer");
    until_replaced(world, "web", &old).await?;
    cast.serves(world, "web", ip).await?;
    ensure!(world.services().ingress("web").await? == outside, "it has another address outside");
    cast.reach(&world.outside(), outside).await
}

/// An amphora is failed over; if that does not help, it is made anew. Its addresses stay.
pub(super) async fn an_amphora_goes_error_and_is_failed_over(world: &mut World) -> anyhow::Result<()> {
    let cast = Cast::new(world).await?;
    world.use_controller_settings(LOOKS).await?;
    let services = world.services();
    let amphora = json!({"loadbalancer.openstack.org/lb-provider": "amphora"});
    let spec = json!({"selector": {"app": "web"}, "type": "LoadBalancer"});
    let ip = cluster_ip(&services.create_with("web", spec, amphora).await?)?;
    cast.serves(world, "web", ip).await?;
    let outside = services.ingress("web").await?;
    let cloud = world.inside()?.cloud.clone();
    let there = only(world, "web")?;
    let failover = |call: &crate::cloud::CallRecord| call.path.ends_with("/failover");
    cloud.calls().reset();
    ensure!(cloud.load_balancing().fail(there.id), "there is no load balancer");
    tokio::time::timeout(PATIENCE, cloud.calls().wait_for(failover)).await.context("it was not failed over")?;
    cast.serves(world, "web", ip).await?;
    ensure!(only(world, "web")?.id == there.id, "it was made anew, although it could be failed over");
    cloud.load_balancing().fail_failovers(1);
    ensure!(cloud.load_balancing().fail(there.id), "there is no load balancer");
    until_replaced(world, "web", &there).await?;
    cast.serves(world, "web", ip).await?;
    ensure!(services.ingress("web").await? == outside, "it has another address outside");
    cast.reach(&world.outside(), outside).await
}

/// A request that is not answered is told of, with the address that it is about.
pub(super) async fn octavia_takes_long_to_answer(world: &mut World) -> anyhow::Result<()> {
    let cast = Cast::new(world).await?;
    let faults = world.inside()?.cloud.faults().clone();
    let id = faults.add(Fault::hang().service(Service::LoadBalancer).on(Method::POST, BALANCERS).times(1));
    let ip = cast.ask(world, "web", json!({})).await?;
    let told = move |held: Option<&KuryrLoadBalancer>| {
        let Some(held) = held else { return false };
        let ready = held.ready().is_some_and(|ready| ready.reason == "Pending" && ready.message.contains("create"));
        ready && held.status.as_ref().is_some_and(|status| status.vips == [ip])
    };
    world.services().when("web", "Pending with its address", PATIENCE, told).await?;
    faults.remove(id);
    cast.serves(world, "web", ip).await
}

pub(super) async fn a_load_balancer_is_deleted_behind_our_back(world: &mut World) -> anyhow::Result<()> {
    replaced_after(world, |cloud, id| cloud.load_balancing().lose(id)).await
}

/// Waits until the Service has a working load balancer that is not this one.
async fn until_replaced(world: &World, service: &str, old: &LoadBalancerState) -> anyhow::Result<()> {
    let id = old.id;
    let replaced = move |held: Option<&KuryrLoadBalancer>| {
        let Some(status) = held.and_then(|held| held.status.as_ref()) else { return false };
        status.load_balancers.first().is_some_and(|there| there.id.0 != id)
    };
    world.services().when(service, "on another load balancer", PATIENCE, replaced).await.map(drop)
}

pub(super) async fn a_member_is_removed_behind_our_back(world: &mut World) -> anyhow::Result<()> {
    let cast = Cast::new(world).await?;
    world.use_controller_settings(LOOKS).await?;
    let ip = cast.ask(world, "web", json!({})).await?;
    cast.serves(world, "web", ip).await?;
    let cloud = world.inside()?.cloud.clone();
    let there = only(world, "web")?;
    let lost = cast.backends[0].address;
    ensure!(cloud.load_balancing().lose_member(there.id, lost, crate::world::services::SERVED), "there is no member");
    let put = |call: &crate::cloud::CallRecord| call.method == Method::PUT && call.path.ends_with("/members");
    cloud.calls().reset();
    tokio::time::timeout(PATIENCE, cloud.calls().wait_for(put)).await.context("the member was not missed")?;
    cast.serves(world, "web", ip).await
}

/// How often the controller is killed, and how many Services live meanwhile.
const KILLS: usize = 10;
const LIVES: usize = 20;

pub(super) async fn the_controller_is_killed_during_the_life_of_services(world: &mut World) -> anyhow::Result<()> {
    let mut cast = Cast::new(world).await?;
    let services = world.services();
    let slice = |backends: &[Backend]| {
        let endpoints: Vec<_> = backends.iter().map(|one| json!({"addresses": [one.address.to_string()]})).collect();
        json!({"endpoints": endpoints, "ports": [{"port": crate::world::services::SERVED}]})
    };
    let (one, two) = (slice(&cast.backends[..1]), slice(&cast.backends));
    let lives = (0..LIVES).map(|number| {
        let (services, one, two, name) = (services.clone(), one.clone(), two.clone(), format!("life-{number}"));
        async move {
            let kind = if number % 2 == 0 { "LoadBalancer" } else { "ClusterIP" };
            services.create(&name, json!({"selector": null, "type": kind})).await?;
            services.create_slice(&format!("{name}-hand"), &name, one.clone()).await?;
            services.ready(&name, 1).await?;
            services.change_slice(&format!("{name}-hand"), two).await?;
            services.ready(&name, 2).await?;
            services.change_slice(&format!("{name}-hand"), one).await?;
            services.ready(&name, 1).await?;
            // Every fourth one stays, to be looked at.
            if number % 4 != 0 {
                services.delete(&name).await?;
                services.gone(&name).await?;
            }
            anyhow::Ok(())
        }
    });
    let lives = lives.collect::<Vec<_>>();
    let work = tokio::spawn(async move { try_join_all(lives).await.map(drop) });
    world.kill_while(work, KILLS, 20..1200).await?;
    cast.backends.truncate(1);
    for number in (0..LIVES).step_by(4) {
        let name = format!("life-{number}");
        services.ready(&name, 1).await?;
        only(world, &name)?;
        let outside = services.ingress(&name).await?;
        cast.reach(&world.outside(), outside).await.with_context(|| name.clone())?;
    }
    let all = world.inside()?.cloud.load_balancing().all();
    // The one more is that of the Service `kubernetes`.
    ensure!(all.len() == LIVES / 4 + 1, "there are {} load balancers: {all:?}", all.len());
    Ok(())
}
