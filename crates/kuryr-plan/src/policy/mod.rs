//! NetworkPolicies, said in Neutron's security groups.
//!
//! ```text
//!   NetworkPolicy ──Policy::read──▶ Policy ─┐
//!   pods, namespaces, Services, nodes ──────┴─ Change ──▶ Compiler ──▶ Delta: the groups of each pod, the rules of each group
//!                                                World ──reach──▶ Verdict: who decides it, for people
//! ```
//!
//! Security groups only allow, and a port may do what any of its groups allows. So a pod has `kuryr-ingress-open`
//! exactly while no policy isolates it for ingress, `kuryr-egress-open` likewise, and beside them or in their place:
//!
//! | group | has rules for | is carried by |
//! |---|---|---|
//! | [`Policy`](GroupKey::Policy) | what a policy allows | the pods that it selects |
//! | [`Peers`](GroupKey::Peers) | nothing: rules name it as their remote side | the pods that a peer selects |
//! | [`Node`](GroupKey::Node) | traffic from and to a node | the isolated pods on it |
//! | [`Loop`](GroupKey::Loop), [`Together`](GroupKey::Together), [`Balanced`](GroupKey::Balanced) | VIPs, see below | few pods |
//!
//! A pod's groups follow from its labels, its node and its named ports, so they are known before it has an address. A
//! new pod changes its own port and, as a rule, no group: that it is a peer is said by what it carries and not by
//! rules.
//!
//! # What is meant exactly
//!
//! The specification of networking.k8s.io/v1. Where it leaves things open, or Neutron has its own mind:
//!
//! - *The address decides*: a pod's address counts for an `ipBlock` like any other. A pod that uses its node's network
//!   is its node.
//! - *A name of a port* is resolved at the pod that is connected to. For ingress that is the one that carries the
//!   group, so a policy has one group for each set of numbers that its pods give to its names. For egress it is the
//!   peer, so there is one peer set for each number.
//! - *Nodes*: "traffic to and from the node where a Pod is running is always allowed", whichever policies there are.
//! - *What cannot be read* opens nothing ([`Problem`]).
//! - *Other protocols* than TCP, UDP and SCTP pass where a rule has no ports at all.
//!
//! # Services
//!
//! OVN shows the first packet of a connection to a VIP to the sender's egress rules as it was sent, and the later ones
//! with the chosen endpoint as their destination. So the sender needs both; with the VIP alone a connection opens and
//! nothing passes, and of UDP the first datagrams get through to a pod that policies forbid. Hence
//!
//! **a pod may send to a listener (VIP, protocol, port number) exactly if its policies allow it every endpoint
//! behind.**
//!
//! What a pod's policies allow is the union over them, so the rule for a VIP cannot stand in each policy's group by
//! that policy alone: two may allow half of the endpoints each. The groups of a pod are a union too, and from that
//! comes the scheme:
//!
//! - A policy's group has the listeners that this policy allows *alone*. Nearly always that is all there is to it.
//! - What a pod's policies (and its node, which allows itself) allow only together, has the group [`Together`] of just
//!   those. It exists while there is such a listener, and nothing smaller would do: one of the two policies alone must
//!   not open the VIP, and a group for each pod would be many.
//! - A policy's rules about addresses may have a VIP that the policy must not open: all addresses at number 443, and a
//!   Service that forwards 443 to 8443. Groups cannot forbid, so the VIP is cut out of the rule's addresses, together
//!   with the whole range that VIPs are from ([`Settings::service_ranges`]), so that Services that come and go change
//!   one rule each. Where nothing must be cut out, nothing is.
//! - A pod always reaches itself. Through its Service it arrives with the *VIP* as the sender, so it needs a rule that
//!   lets that in; nobody else ever has that address, so one of the policies that isolate the pod has the rule for all
//!   its pods, and no port changes when Services do. To get out it needs the VIP and itself, if all else behind the
//!   listener is allowed; that is the group [`Loop`](GroupKey::Loop), whose rules name the group itself, because a
//!   pod's own address is not known when its groups are.
//! - Where a load balancer hides the client, the pods behind it see nobody but the load balancer. Nobody is let in for
//!   its sake, unless it is *guarded*: its listeners can tell clients apart, as Octavia's amphorae can.
//!
//! # Guarded Services
//!
//! What the pods cannot see, the listener has to: it lets in exactly those whom *every* pod behind it would let in at its
//! target port number ([`Limit`]); pods that let in nobody do not count, for they stay closed to the load balancer. Then the
//! pods may let the load balancer in, and that is the group [`Balanced`](GroupKey::Balanced), with the load balancer's own
//! addresses. A pod carries it exactly if each listener that leads to that port number is known to let in
//! ([`Guard::admits`]) only whom the pod would. So
//!
//! **through a guarded load balancer a client reaches a pod only if the pod's policies allow it**
//!
//! at any moment, in whatever order listeners, policies and pods change: a pod whose policies become stricter is closed to the
//! load balancer until its listener is, too. The load balancer's addresses are cut out of the blocks of ingress rules, as VIPs are
//! for egress, or a block that has them would let in everybody.
//!
//! Where the pods behind one listener do not let in the same, those that only some let in are refused, and it is said
//! ([`Limit::wider`]). Only of a pod's own node and the pod itself it is not said: they get through if that is true of all.
//!
//! Invariants: nothing here depends on the order in which changes came; a change looks only at what it touches; a bad
//! object is a problem of that object. Compared with two evaluators that share no code with this one, in
//! `tests/policy`.

mod cidr;
mod clause;
mod compiler;
mod group;
mod naming;
pub(crate) mod nets;
mod objects;
mod open;
mod problem;
mod reach;
mod read;
mod selector;
mod service;
mod spec;
mod world;

pub use cidr::IpBlock;
pub use compiler::{Compiler, Limit, Limits, MAX_CLIENTS, Report, Settings, compile};
pub use group::{
    Balanced, Compiled, Delta, GroupChange, GroupKey, ListenerKey, LoopPath, PeerSet, Peers, PodChange, PolicyGroup,
    Remote, Rule, Together,
};
pub use naming::{description, digest_in};
pub use objects::{containers, named_port, node_addresses, pod_of};
pub use open::{Span, open};
pub use problem::{Effect, MAX_RULES, Problem};
pub use reach::{Answer, Cause, Look, NoAnswer, Place, Side, Verdict, Way, reach};
pub use read::Nameless;
pub use selector::{Labels, Requirement, Selector};
pub use spec::{Namespaces, Peer, Policy, PolicyRule, Ports, Protocol};
pub use world::{Change, Endpoint, Guard, NamedPort, Pod, Service, ServicePort, World};
