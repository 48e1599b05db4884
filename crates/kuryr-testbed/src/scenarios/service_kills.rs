//! The controller dies at every step of a Service's life: after each write was done, and before it knows.

use super::services::SOON;
use crate::{
    cloud::{Cloud, Fault, Service},
    kubernetes::{Fault as ApiFault, FaultEffect, FaultGuard},
    world::{Backend, Services, World, pods::PATIENCE, services::SERVED},
};
use anyhow::{Context, ensure};
use http::Method;
use kube::Api;
use kuryr_model::KuryrLoadBalancer;
use kuryr_openstack::Filter;
use serde_json::{Value, json};
use std::net::IpAddr;
use tokio::time::timeout;

/// What the controller writes into Kubernetes for a Service.
const WRITES: [(&str, &str); 4] = [
    ("create", "kuryrloadbalancers"),
    ("patch", "kuryrloadbalancers/status"),
    ("patch", "kuryrloadbalancers"),
    ("patch", "services/status"),
];

/// Where the controller dies.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// After so many other writes to the cloud.
    Cloud(usize),
    /// After so many other writes of this verb to this resource.
    Kubernetes((&'static str, &'static str), u32),
}

/// A Service that is made, changed in every way that takes steps, and deleted.
#[derive(Clone)]
struct Life {
    services: Services,
    cloud: Cloud,
    owner: String,
    endpoints: Vec<IpAddr>,
    name: String,
}

impl Life {
    fn slice(&self, endpoints: usize) -> Value {
        let addresses = self.endpoints[..endpoints].iter().map(|ip| json!({"addresses": [ip.to_string()]}));
        let ports = ["a", "b"].map(|name| json!({"name": name, "port": SERVED}));
        json!({"endpoints": addresses.collect::<Vec<_>>(), "ports": ports})
    }

    /// Waits until the Service is all right and has so many listeners.
    async fn serves(&self, listeners: usize, members: u32) -> anyhow::Result<()> {
        let has = move |held: Option<&KuryrLoadBalancer>| {
            let there = held.and_then(|held| held.status.as_ref()).and_then(|status| status.load_balancers.first());
            there.is_some_and(|there| there.listeners.len() == listeners)
        };
        self.services.when(&self.name, &format!("with {listeners} listeners"), PATIENCE, has).await?;
        self.services.ready(&self.name, members).await?;
        let balancers = self.cloud.load_balancing().all();
        let own = balancers.iter().filter(|one| one.name == self.owner).count();
        ensure!(own == 1, "there are {own} load balancers");
        Ok(())
    }

    async fn live(self) -> anyhow::Result<()> {
        let (name, hand) = (self.name.as_str(), format!("{}-hand", self.name));
        let port = |name: &str, number: u16| json!({"name": name, "port": number, "targetPort": SERVED});
        self.services.create_slice(&hand, name, self.slice(1)).await?;
        let spec = json!({"selector": null, "type": "LoadBalancer", "ports": [port("a", 80)]});
        self.services.create(name, spec).await.context("made")?;
        self.serves(1, 1).await?;
        self.services.ingress(name).await?;
        self.services.change_slice(&hand, self.slice(2)).await?;
        self.serves(1, 2).await.context("with one more endpoint")?;
        let two = json!({"spec": {"ports": [port("a", 80), port("b", 81)]}});
        self.services.change(name, two).await?;
        self.serves(2, 2).await.context("with one more port")?;
        let one = json!({"spec": {"type": "ClusterIP", "ports": [port("b", 81)]}});
        self.services.change(name, one).await?;
        let inside = |held: Option<&KuryrLoadBalancer>| {
            held.and_then(|held| held.status.as_ref()).is_some_and(|status| status.external.is_empty())
        };
        self.services.when(name, "without an address outside", PATIENCE, inside).await?;
        self.serves(1, 2).await.context("with one port less, and inside only")?;
        self.services.delete(name).await?;
        self.services.gone(name).await
    }
}

/// Lets a Service live, and the controller die at that place of its life. Whether it came there.
async fn die(world: &mut World, life: Life, place: Place) -> anyhow::Result<bool> {
    let cloud = life.cloud.clone();
    let api = world.inside()?.api.clone();
    let mut held = api.faults().held();
    held.mark_unchanged();
    let mut fault = None;
    let mut guard = None;
    match place {
        Place::Cloud(after) => {
            let rule = Fault::hold_answer().after(after).times(1).when(|call| {
                call.method != Method::GET && matches!(call.service, Service::LoadBalancer | Service::Network)
            });
            fault = Some(cloud.faults().add(rule));
        }
        Place::Kubernetes((verb, resource), after) => {
            let (verb, resource) = (Some(verb.to_owned()), Some(resource.to_owned()));
            let effect = Some(FaultEffect::HoldAnswer);
            guard = Some(api.faults().inject(ApiFault {
                verb,
                resource,
                after,
                times: Some(1),
                effect,
                ..ApiFault::default()
            }));
        }
    }
    let struck = async {
        match fault {
            Some(id) => cloud.faults().wait_for_done(id, 1).await,
            // Its sender lives as long as the API server.
            None => drop(held.changed().await),
        }
    };
    let mut lives = tokio::spawn(life.live());
    let (came, over) = tokio::select! {
        lived = &mut lives => {
            lived??;
            // With the last write the life is over, too.
            let struck = fault.map_or_else(
                || guard.as_ref().is_some_and(FaultGuard::is_used_up),
                |id| cloud.faults().hits(id) > 0,
            );
            (struck, true)
        }
        () = struck => (true, false),
    };
    if came {
        world.kuryr.kill_controllers().await?;
    }
    drop(guard);
    if let Some(id) = fault {
        cloud.faults().remove(id);
    }
    if came {
        world.kuryr.start_controller().await?;
    }
    if !over {
        lives.await??;
    }
    Ok(came)
}

/// How often the controller died, one Service for each place.
async fn die_everywhere(
    world: &mut World,
    backends: &[Backend],
    places: impl Iterator<Item = Place>,
) -> anyhow::Result<usize> {
    let mut deaths = 0;
    for place in places {
        let name = format!("life-{deaths}");
        let life = Life {
            services: world.services(),
            cloud: world.inside()?.cloud.clone(),
            owner: format!("{}/{name}", world.namespace()),
            endpoints: backends.iter().map(|backend| backend.address).collect(),
            name,
        };
        let owner = life.owner.clone();
        let came = die(world, life, place).await.with_context(|| format!("{place:?}"))?;
        let balancers = world.inside()?.cloud.load_balancing().all();
        ensure!(balancers.iter().all(|one| one.name != owner), "{place:?}: a load balancer is left");
        let floating = world.cloud.network().floating_ips().list(&Filter::new()).await?;
        ensure!(floating.is_empty(), "{place:?}: {floating:?} is left");
        let services: Api<k8s_openapi::api::discovery::v1::EndpointSlice> =
            Api::namespaced(world.client.clone(), world.namespace());
        services.delete(&format!("life-{deaths}-hand"), &kube::api::DeleteParams::default()).await?;
        if !came {
            break;
        }
        deaths += 1;
    }
    Ok(deaths)
}

async fn backends(world: &World) -> anyhow::Result<Vec<Backend>> {
    // What Kubernetes brings of its own is not what the controller is to die of.
    Services::new(&world.client, "default").ready("kubernetes", 1).await?;
    let backends = world.backends("web", 0..2).await?;
    // Nothing but the Service is worked on from here on.
    timeout(SOON, world.inside()?.cloud.load_balancing().settled()).await.context("Octavia is at work")?;
    Ok(backends)
}

pub(super) async fn the_controller_dies_after_each_write_to_the_cloud(world: &mut World) -> anyhow::Result<()> {
    let backends = backends(world).await?;
    let deaths = die_everywhere(world, &backends, (0..).map(Place::Cloud)).await?;
    // Load balancer, floating IP and its tags; members; pool, members and listener; what goes with a port and a type; all.
    ensure!(deaths >= 11, "a life has only {deaths} writes");
    tracing::info!(deaths, "the controller died after each write to the cloud");
    Ok(())
}

pub(super) async fn the_controller_dies_after_each_write_to_kubernetes(world: &mut World) -> anyhow::Result<()> {
    let backends = backends(world).await?;
    for write in WRITES {
        let deaths = die_everywhere(world, &backends, (0..).map(|after| Place::Kubernetes(write, after))).await?;
        ensure!(deaths > 0, "{write:?} is never written");
        tracing::info!(deaths, ?write, "the controller died after each");
    }
    Ok(())
}
