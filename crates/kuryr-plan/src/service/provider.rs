//! Who carries load balancers out, and what each of them cannot do.
//!
//! What the table here says was read in the providers' code (Zed to 2024) and tried with packets on OVN. What it does not
//! say is learned: an answer of 501 names the feature, is kept in [`Refusals`], and the next plan does without it. Where the
//! table can know, it must: a tree that the OVN provider of Zed refuses half-way keeps a worker of Octavia's API busy for
//! minutes (it waits for the status of a load balancer that was rolled back).

use kuryr_model::lb::{Algorithm, MonitorType, Protocol};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Who carries out a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// Not known yet: Octavia has not said whom it has. Nothing is asked of it until it has.
    #[default]
    Unknown,
    /// OVN: in the network itself.
    Ovn,
    /// A virtual machine with HAProxy (`amphora`, also called `octavia` and `amphorav2`).
    Amphora,
    /// Another one; taken to be able to do everything until it refuses.
    Other(String),
}

impl Provider {
    /// The provider of this name; an empty one is [`Self::Unknown`].
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name {
            "" => Self::Unknown,
            "ovn" => Self::Ovn,
            "amphora" | "octavia" | "amphorav2" => Self::Amphora,
            other => Self::Other(other.to_owned()),
        }
    }

    /// What to ask Octavia for; `None`: nothing.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Unknown => None,
            Self::Ovn => Some("ovn"),
            Self::Amphora => Some("amphora"),
            Self::Other(name) => Some(name),
        }
    }

    /// What is known of it beforehand.
    pub(crate) fn table(&self, feature: Feature) -> Can {
        match self {
            Self::Ovn => ovn(feature),
            Self::Amphora => amphora(feature),
            Self::Unknown | Self::Other(_) => Can::Yes,
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str().unwrap_or("that Octavia has not named yet"))
    }
}

/// Something that not every provider can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Only some clients may connect.
    AllowedCidrs,
    /// A way to choose the member.
    Algorithm(Algorithm),
    /// A protocol of a listener or a listener pool.
    Protocol(Protocol),
    /// Several addresses in one load balancer.
    AdditionalVips,
    /// A way to find out the health of members.
    Monitor(MonitorType),
    /// A health monitor that comes with its load balancer, in one request.
    MonitorAtOnce,
    /// Members that keep their connections and get no new ones (weight 0).
    Draining,
    /// Binding clients to members.
    Persistence,
    /// Doing so for a given time.
    PersistenceTimeout,
    /// Timeouts of listeners.
    Timeouts,
    /// A limit of connections.
    ConnectionLimit,
    /// Flavors.
    Flavor,
    /// Availability zones.
    AvailabilityZone,
    /// Making a broken load balancer anew.
    Failover,
}

/// What a provider does with a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Can {
    /// It does it.
    Yes,
    /// It takes it, and does nothing.
    NoEffect,
    /// It refuses it.
    No,
}

fn ovn(feature: Feature) -> Can {
    match feature {
        // It takes any weight and any persistence, and has no use for them: tried. A health monitor that comes with its load
        // balancer stays PENDING_CREATE for ever, and a change of it locks the load balancer.
        Feature::Timeouts
        | Feature::ConnectionLimit
        | Feature::MonitorAtOnce
        | Feature::Draining
        | Feature::Persistence
        | Feature::PersistenceTimeout => Can::NoEffect,
        // Of several addresses, older ones make the first; newer ones can. Two load balancers work with all of them, and
        // cost next to nothing in OVN.
        Feature::Flavor
        | Feature::AvailabilityZone
        | Feature::Failover
        | Feature::AdditionalVips
        // No release is known to limit clients.
        | Feature::AllowedCidrs => Can::No,
        Feature::Algorithm(algorithm) => yes_if(algorithm == Algorithm::SourceIpPort),
        Feature::Protocol(protocol) => yes_if(matches!(protocol, Protocol::Tcp | Protocol::Udp | Protocol::Sctp)),
        Feature::Monitor(kind) => yes_if(matches!(kind, MonitorType::Tcp | MonitorType::UdpConnect)),
    }
}

fn amphora(feature: Feature) -> Can {
    yes_if(feature != Feature::Algorithm(Algorithm::SourceIpPort))
}

fn yes_if(yes: bool) -> Can {
    if yes { Can::Yes } else { Can::No }
}

impl Feature {
    /// The feature that an answer of 501 (`faultstring`) speaks of; or one of 400, where an Octavia is too old to know a
    /// field (`Unknown attribute: additional_vips`). `None`: it names none that could be left out, so nothing is learned.
    #[must_use]
    pub fn refused(fault: &str) -> Option<Self> {
        let lower = fault.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        let names = |word: &str, what: &str| lower.contains(&format!("support {} {what}", word.to_lowercase()));
        if says(&["allowed_cidrs", "allowed cidrs"]) {
            return Some(Self::AllowedCidrs);
        }
        if says(&["additional vip", "additional_vip", "multiple vip", "mixing ipv4/ipv6"]) {
            return Some(Self::AdditionalVips);
        }
        if says(&["failover"]) {
            return Some(Self::Failover);
        }
        if says(&["persistence_timeout"]) {
            return Some(Self::PersistenceTimeout);
        }
        if says(&["session persistence", "session_persistence"]) {
            return Some(Self::Persistence);
        }
        if says(&["availability zone", "availability_zone"]) {
            return Some(Self::AvailabilityZone);
        }
        if says(&["flavor"]) {
            return Some(Self::Flavor);
        }
        if let Some(kind) = MONITORS.into_iter().find(|kind| names(kind.as_str(), "health monitor")) {
            return Some(Self::Monitor(kind));
        }
        if let Some(algorithm) = ALGORITHMS.into_iter().find(|algorithm| names(algorithm.as_str(), "algorithm")) {
            return Some(Self::Algorithm(algorithm));
        }
        PROTOCOLS.into_iter().find(|protocol| names(protocol.as_str(), "protocol")).map(Self::Protocol)
    }
}

/// In the order in which they are tried where a Service does not say: each endpoint gets the same share if it can be had.
pub(crate) const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::RoundRobin, Algorithm::SourceIpPort, Algorithm::LeastConnections, Algorithm::SourceIp];

const MONITORS: [MonitorType; 7] = [
    MonitorType::Tcp,
    MonitorType::UdpConnect,
    MonitorType::Sctp,
    MonitorType::Http,
    MonitorType::Https,
    MonitorType::Ping,
    MonitorType::TlsHello,
];

const PROTOCOLS: [Protocol; 9] = [
    Protocol::Tcp,
    Protocol::Udp,
    Protocol::Sctp,
    Protocol::Http,
    Protocol::Https,
    Protocol::TerminatedHttps,
    Protocol::Proxy,
    Protocol::ProxyV2,
    Protocol::Prometheus,
];

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllowedCidrs => f.write_str("limiting listeners to some clients"),
            Self::Algorithm(algorithm) => write!(f, "the algorithm {algorithm}"),
            Self::Protocol(protocol) => write!(f, "the protocol {protocol}"),
            Self::AdditionalVips => f.write_str("several addresses in one load balancer"),
            Self::Monitor(kind) => write!(f, "health monitors of type {kind}"),
            Self::MonitorAtOnce => f.write_str("health monitors that come with their load balancer"),
            Self::Draining => f.write_str("members that only keep their connections"),
            Self::Persistence => f.write_str("binding clients to members"),
            Self::PersistenceTimeout => f.write_str("binding clients to members for a given time"),
            Self::Timeouts => f.write_str("timeouts"),
            Self::ConnectionLimit => f.write_str("a limit of connections"),
            Self::Flavor => f.write_str("flavors"),
            Self::AvailabilityZone => f.write_str("availability zones"),
            Self::Failover => f.write_str("failover"),
        }
    }
}

/// What providers have refused (501), beyond what is known of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals(BTreeMap<Provider, BTreeSet<Feature>>);

impl Refusals {
    /// Remembers that `provider` refused `feature`. False if that was known: then asking again is
    /// no use, since the plan did without it already.
    pub fn learn(&mut self, provider: Provider, feature: Feature) -> bool {
        self.0.entry(provider).or_default().insert(feature)
    }

    fn contains(&self, provider: &Provider, feature: Feature) -> bool {
        self.0.get(provider).is_some_and(|refused| refused.contains(&feature))
    }
}

/// What is known of one provider.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abilities<'a> {
    /// Who that is.
    pub(crate) provider: &'a Provider,
    refusals: &'a Refusals,
}

impl<'a> Abilities<'a> {
    /// Those of this provider, as far as they are known.
    pub(crate) fn of(provider: &'a Provider, refusals: &'a Refusals) -> Self {
        Self { provider, refusals }
    }

    /// What it does with a feature.
    pub(crate) fn can(self, feature: Feature) -> Can {
        if self.refusals.contains(self.provider, feature) { Can::No } else { self.provider.table(feature) }
    }

    /// Whether it does it.
    pub(crate) fn does(self, feature: Feature) -> bool {
        self.can(feature) == Can::Yes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn can(provider: &Provider, feature: Feature) -> Can {
        Abilities::of(provider, &Refusals::default()).can(feature)
    }

    #[test]
    fn the_ovn_provider_is_known_not_to_speak_http() {
        assert_eq!(can(&Provider::Ovn, Feature::Protocol(Protocol::Http)), Can::No);
        assert_eq!(can(&Provider::Ovn, Feature::Timeouts), Can::NoEffect);
        assert_eq!(can(&Provider::Amphora, Feature::Protocol(Protocol::Http)), Can::Yes);
    }

    #[test]
    fn a_provider_has_several_names() {
        for name in ["amphora", "octavia", "amphorav2"] {
            assert_eq!(Provider::named(name), Provider::Amphora);
        }
        assert_eq!(Provider::named(""), Provider::Unknown);
        assert_eq!(Provider::named("f5").as_str(), Some("f5"));
    }

    #[test]
    fn what_was_refused_is_not_asked_for_again() {
        let mut refusals = Refusals::default();
        assert!(refusals.learn(Provider::Ovn, Feature::AllowedCidrs));
        assert!(!refusals.learn(Provider::Ovn, Feature::AllowedCidrs));
        assert_eq!(Abilities::of(&Provider::Ovn, &refusals).can(Feature::AllowedCidrs), Can::No);
        assert_eq!(Abilities::of(&Provider::Amphora, &refusals).can(Feature::AllowedCidrs), Can::Yes);
    }

    #[test]
    fn a_refusal_says_which_feature_it_is_about() {
        let says =
            |text: &str| Feature::refused(&format!("Provider 'ovn' does not support a requested option: {text}"));
        let all = [
            ("OVN provider does not support allowed_cidrs option", Feature::AllowedCidrs),
            ("OVN provider does not support ROUND_ROBIN algorithm", Feature::Algorithm(Algorithm::RoundRobin)),
            ("OVN provider does not support SOURCE_IP algorithm", Feature::Algorithm(Algorithm::SourceIp)),
            ("OVN provider does not support HTTP protocol", Feature::Protocol(Protocol::Http)),
            (
                "OVN provider does not support HTTP health monitor type. Supported types: UDP-CONNECT, TCP",
                Feature::Monitor(MonitorType::Http),
            ),
            ("OVN provider does not support loadbalancer failover", Feature::Failover),
            (
                "OVN provider does not support mixing IPv4/IPv6 configuration within the same Load Balancer.",
                Feature::AdditionalVips,
            ),
        ];
        for (text, feature) in all {
            assert_eq!(says(text), Some(feature), "{text}");
        }
        let old = "Invalid input for field/attribute load_balancer. Value: '{...}'. Unknown attribute: additional_vips";
        assert_eq!(Feature::refused(old), Some(Feature::AdditionalVips));
        assert_eq!(says("Subnet is required, or Loadbalancer associated with Pool must have a subnet"), None);
    }
}
