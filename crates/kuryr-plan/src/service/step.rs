//! One call to Octavia or Neutron, with all that it needs.

use super::tree::{Listener, ListenerKey, Member, Monitor, Place, Pool, Role, Tree, WantedFloating};
use kuryr_model::{
    FloatingIpId, HealthMonitorId, ListenerId, ListenerPoolId, LoadBalancerId, PortId, lb::Provisioning,
};
use std::fmt;

/// What to do next. Everything in a desired object that a call does not take is for logs, or for the steps after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a load balancer with all that is below it, in one fully populated POST; without health monitors if they are to
    /// follow ([`Tree::monitors_follow`]).
    CreateTree(Box<Tree>),
    /// Make a listener pool without listener, and without members and health monitor: they follow.
    CreatePool {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The listener pool.
        pool: Pool,
        /// Its tags.
        tags: Vec<String>,
    },
    /// Give a listener pool exactly these members, in one batch PUT.
    SetMembers {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The listener pool.
        pool: ListenerPoolId,
        /// Whose it is.
        listener: ListenerKey,
        /// The members.
        members: Vec<Member>,
    },
    /// Change algorithm and session persistence of a listener pool.
    UpdatePool {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The listener pool.
        id: ListenerPoolId,
        /// What it is to be.
        pool: Pool,
    },
    /// Delete a listener pool with its members and health monitor.
    DeletePool {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The listener pool.
        id: ListenerPoolId,
    },
    /// Make a health monitor.
    CreateMonitor {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The listener pool that it watches.
        pool: ListenerPoolId,
        /// The health monitor.
        monitor: Monitor,
        /// Its tags.
        tags: Vec<String>,
    },
    /// Change times and counts of a health monitor.
    UpdateMonitor {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The health monitor.
        id: HealthMonitorId,
        /// What it is to be.
        monitor: Monitor,
    },
    /// Delete a health monitor.
    DeleteMonitor {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The health monitor.
        id: HealthMonitorId,
    },
    /// Make a listener in front of a listener pool.
    CreateListener {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The listener; its own `pool` is there already.
        listener: Listener,
        /// The listener pool.
        pool: ListenerPoolId,
        /// Its tags.
        tags: Vec<String>,
    },
    /// Change limits, timeouts, allowed clients, headers and listener pool of a listener.
    UpdateListener {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The listener.
        id: ListenerId,
        /// What it is to be.
        listener: Listener,
        /// The listener pool that it is to have.
        pool: ListenerPoolId,
    },
    /// Delete a listener; its listener pool stays.
    DeleteListener {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The listener.
        id: ListenerId,
        /// What it is known by.
        listener: ListenerKey,
    },
    /// Delete a load balancer with all that is below it (cascade).
    DeleteTree {
        /// The load balancer.
        load_balancer: LoadBalancerId,
        /// Why.
        why: Why,
    },
    /// Let Octavia make a load balancer anew that is in `ERROR`.
    Failover {
        /// The load balancer.
        load_balancer: LoadBalancerId,
    },
    /// Octavia is at work on a load balancer: nothing can be done with it until it is not.
    Wait {
        /// The load balancer.
        load_balancer: LoadBalancerId,
        /// Its state.
        status: Provisioning,
    },
    /// Make a floating IP.
    CreateFloating {
        /// The floating IP.
        floating: WantedFloating,
        /// The port that it leads to at once; `None`: nowhere yet, since another one still leads there.
        port: Option<PortId>,
    },
    /// Let a floating IP lead to a port.
    AssociateFloating {
        /// The floating IP.
        id: FloatingIpId,
        /// The port.
        port: PortId,
    },
    /// Let a floating IP lead nowhere.
    DisassociateFloating {
        /// The floating IP.
        id: FloatingIpId,
    },
    /// Replace the tags of a floating IP.
    TagFloating {
        /// The floating IP.
        id: FloatingIpId,
        /// All its tags.
        tags: Vec<String>,
    },
    /// Give a floating IP back to the project: it leads nowhere and is not Kuryr's any more. The description goes in the
    /// same request as the port, the tags after it.
    ReleaseFloating {
        /// The floating IP.
        id: FloatingIpId,
        /// What its description becomes; `None`: it stays.
        description: Option<String>,
        /// All the tags that it keeps.
        tags: Vec<String>,
    },
    /// Delete a floating IP.
    DeleteFloating {
        /// The floating IP.
        id: FloatingIpId,
    },
}

/// Why a load balancer is deleted. In every case but the first one it is made anew afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing wants it.
    Unwanted,
    /// It is in `ERROR`, and failing it over does not help or cannot be done.
    Error,
    /// It has addresses that it should not have, or lacks its own.
    Addresses,
    /// It is of another provider.
    Provider,
    /// It is of another flavor.
    Flavor,
    /// It is in another availability zone.
    AvailabilityZone,
}

impl Step {
    /// The load balancer that must be `ACTIVE` for the step, and is `PENDING_UPDATE` after it; `None` for steps that make
    /// one or are Neutron's.
    #[must_use]
    pub fn load_balancer(&self) -> Option<LoadBalancerId> {
        match self {
            Self::CreatePool { load_balancer, .. }
            | Self::SetMembers { load_balancer, .. }
            | Self::UpdatePool { load_balancer, .. }
            | Self::DeletePool { load_balancer, .. }
            | Self::CreateMonitor { load_balancer, .. }
            | Self::UpdateMonitor { load_balancer, .. }
            | Self::DeleteMonitor { load_balancer, .. }
            | Self::CreateListener { load_balancer, .. }
            | Self::UpdateListener { load_balancer, .. }
            | Self::DeleteListener { load_balancer, .. }
            | Self::DeleteTree { load_balancer, .. }
            | Self::Failover { load_balancer }
            | Self::Wait { load_balancer, .. } => Some(*load_balancer),
            Self::CreateTree(_)
            | Self::CreateFloating { .. }
            | Self::AssociateFloating { .. }
            | Self::DisassociateFloating { .. }
            | Self::TagFloating { .. }
            | Self::ReleaseFloating { .. }
            | Self::DeleteFloating { .. } => None,
        }
    }

    /// Whether it changes what a load balancer that stays leads to.
    #[must_use]
    pub fn changes_load_balancer(&self) -> bool {
        let stays = !matches!(self, Self::DeleteTree { .. } | Self::Failover { .. } | Self::Wait { .. });
        stays && self.load_balancer().is_some()
    }

    /// Whether it changes where a floating IP leads.
    #[must_use]
    pub fn leads_floating(&self) -> bool {
        match self {
            Self::CreateFloating { port, .. } => port.is_some(),
            Self::AssociateFloating { .. }
            | Self::DisassociateFloating { .. }
            | Self::ReleaseFloating { .. }
            | Self::DeleteFloating { .. } => true,
            _ => false,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateTree(tree) => {
                write!(f, "create load balancer {} {}", tree.name, at(tree))?;
                for listener in &tree.listeners {
                    write!(f, ", {} with {}", listener.key, Count(listener.pool.members.len()))?;
                }
                Ok(())
            }
            Self::CreatePool { pool, .. } => write!(f, "create listener pool {}", pool.name),
            Self::SetMembers { listener, members, .. } => {
                write!(f, "set members of {listener}: {}", Count(members.len()))?;
                match members.iter().filter(|member| member.weight == 0).count() {
                    0 => Ok(()),
                    draining => write!(f, ", {draining} of them draining"),
                }
            }
            Self::UpdatePool { pool, .. } => write!(f, "update listener pool {}", pool.name),
            Self::DeletePool { id, .. } => write!(f, "delete listener pool {id}"),
            Self::CreateMonitor { monitor, .. } => write!(f, "create health monitor {}", monitor.name),
            Self::UpdateMonitor { monitor, .. } => write!(f, "update health monitor {}", monitor.name),
            Self::DeleteMonitor { id, .. } => write!(f, "delete health monitor {id}"),
            Self::CreateListener { listener, .. } => write!(f, "create listener {}", listener.key),
            Self::UpdateListener { listener, .. } => write!(f, "update listener {}", listener.key),
            Self::DeleteListener { listener, .. } => write!(f, "delete listener {listener}"),
            Self::DeleteTree { load_balancer, why } => write!(f, "delete load balancer {load_balancer}: {why}"),
            Self::Failover { load_balancer } => write!(f, "fail over load balancer {load_balancer}"),
            Self::Wait { load_balancer, status } => write!(f, "wait for load balancer {load_balancer}: {status}"),
            Self::CreateFloating { floating, port } => {
                f.write_str("create floating IP")?;
                if let Some(address) = floating.address {
                    write!(f, " {address}")?;
                }
                if port.is_none() { f.write_str(" that leads nowhere yet") } else { Ok(()) }
            }
            Self::AssociateFloating { id, port } => write!(f, "lead floating IP {id} to port {port}"),
            Self::DisassociateFloating { id } => write!(f, "lead floating IP {id} nowhere"),
            Self::TagFloating { id, .. } => write!(f, "tag floating IP {id}"),
            Self::ReleaseFloating { id, .. } => write!(f, "give floating IP {id} back"),
            Self::DeleteFloating { id } => write!(f, "delete floating IP {id}"),
        }
    }
}

fn at(tree: &Tree) -> String {
    let addresses: Vec<String> = tree.addresses().map(|ip| ip.to_string()).collect();
    match (&tree.place, tree.role) {
        (Place::Port(port), _) => format!("at port {port}"),
        (_, Role::External) if addresses.is_empty() => "at an address of its own".to_owned(),
        _ => format!("at {}", addresses.join(" and ")),
    }
}

struct Count(usize);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 member"),
            count => write!(f, "{count} members"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unwanted => "nothing wants it",
            Self::Error => "it is in ERROR",
            Self::Addresses => "it has other addresses",
            Self::Provider => "it is of another provider",
            Self::Flavor => "it is of another flavor",
            Self::AvailabilityZone => "it is in another availability zone",
        })
    }
}
