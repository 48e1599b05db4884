//! What Octavia answers, reduced to the fields that Kuryr reads. Field names are Octavia's own; what Octavia calls a
//! pool is a *listener pool* here.
//!
//! A list asked for with `fields=` leaves the others out, and older Octavias do not have all, so what is not an id has
//! a default.

mod tree;

pub use tree::Tree;

use crate::{
    FlavorId, HealthMonitorId, ListenerId, ListenerPoolId, LoadBalancerId, MemberId, NetworkId, PortId, SubnetId,
};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

/// One of the words that Octavia uses for something.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $word:ident = $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$about])* #[serde(rename = $text)] $word,)*
            /// A word that this version of Kuryr does not know.
            #[default]
            #[serde(other)]
            Other,
        }

        impl $name {
            /// The word as Octavia writes it; `OTHER` for those that Kuryr does not know.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => $text,)*
                    Self::Other => "OTHER",
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

words! {
    /// Whether Octavia is at work on an object.
    Provisioning {
        /// As it was asked for; may be changed.
        Active = "ACTIVE",
        /// Being made.
        PendingCreate = "PENDING_CREATE",
        /// Being changed.
        PendingUpdate = "PENDING_UPDATE",
        /// Being deleted.
        PendingDelete = "PENDING_DELETE",
        /// The last change of it failed. It can be deleted, and a load balancer failed over.
        Error = "ERROR",
        /// Gone; shown for a while by some calls.
        Deleted = "DELETED",
    }
    /// Whether an object serves.
    Operating {
        /// It serves.
        Online = "ONLINE",
        /// Switched off, or not yet heard of.
        Offline = "OFFLINE",
        /// Some of what is below it does not serve.
        Degraded = "DEGRADED",
        /// It does not serve.
        Error = "ERROR",
        /// Nobody watches it.
        NoMonitor = "NO_MONITOR",
        /// It gets no new connections.
        Draining = "DRAINING",
    }
    /// What a listener or a listener pool speaks.
    Protocol {
        /// TCP.
        Tcp = "TCP",
        /// UDP.
        Udp = "UDP",
        /// SCTP.
        Sctp = "SCTP",
        /// HTTP.
        Http = "HTTP",
        /// TLS passed through to the members.
        Https = "HTTPS",
        /// TLS that ends at the load balancer; only of listeners.
        TerminatedHttps = "TERMINATED_HTTPS",
        /// TCP with a header that says who the client is; only of listener pools.
        Proxy = "PROXY",
        /// The same with the binary form of the header.
        ProxyV2 = "PROXYV2",
        /// The load balancer's own metrics; only of listeners.
        Prometheus = "PROMETHEUS",
    }
    /// How a listener pool chooses the member for a connection.
    Algorithm {
        /// One after the other.
        RoundRobin = "ROUND_ROBIN",
        /// The one with the fewest connections.
        LeastConnections = "LEAST_CONNECTIONS",
        /// By the client's address.
        SourceIp = "SOURCE_IP",
        /// By the client's address and port number: the only one of the OVN provider.
        SourceIpPort = "SOURCE_IP_PORT",
    }
    /// What binds a client to one member.
    Persistence {
        /// Its address.
        SourceIp = "SOURCE_IP",
        /// A cookie of the load balancer.
        HttpCookie = "HTTP_COOKIE",
        /// A cookie of the application.
        AppCookie = "APP_COOKIE",
    }
    /// How the health of members is found out.
    MonitorType {
        /// An HTTP request.
        Http = "HTTP",
        /// An HTTP request over TLS.
        Https = "HTTPS",
        /// ICMP.
        Ping = "PING",
        /// A TCP connection.
        Tcp = "TCP",
        /// The begin of a TLS connection.
        TlsHello = "TLS-HELLO",
        /// A UDP packet that is not refused.
        UdpConnect = "UDP-CONNECT",
        /// An SCTP association.
        Sctp = "SCTP",
    }
}

impl Provisioning {
    /// Whether Octavia is at work on it. A load balancer at work refuses every change of it and of what is below it,
    /// with 409.
    #[must_use]
    pub fn is_pending(self) -> bool {
        matches!(self, Self::PendingCreate | Self::PendingUpdate | Self::PendingDelete)
    }
}

/// A load balancer: addresses, and listeners at them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancer {
    /// Its id.
    pub id: LoadBalancerId,
    /// For people; Kuryr writes `<namespace>/<service>`.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// For people.
    #[serde(default, deserialize_with = "or_default")]
    pub description: String,
    /// Who carries it out, such as `amphora`, `ovn`.
    #[serde(default, deserialize_with = "or_default")]
    pub provider: String,
    /// Whether Octavia is at work on it or on anything below it.
    #[serde(default)]
    pub provisioning_status: Provisioning,
    /// Whether it serves.
    #[serde(default)]
    pub operating_status: Operating,
    /// Its first address.
    #[serde(default)]
    pub vip_address: Option<IpAddr>,
    /// The port that has its addresses.
    #[serde(default)]
    pub vip_port_id: Option<PortId>,
    /// The subnet of its first address.
    #[serde(default)]
    pub vip_subnet_id: Option<SubnetId>,
    /// The network of all its addresses.
    #[serde(default)]
    pub vip_network_id: Option<NetworkId>,
    /// Its further addresses.
    #[serde(default, deserialize_with = "or_default")]
    pub additional_vips: Vec<AdditionalVip>,
    /// Its tags.
    #[serde(default, deserialize_with = "or_default")]
    pub tags: Vec<String>,
    /// Its listeners.
    #[serde(default, with = "ids")]
    pub listeners: Vec<ListenerId>,
    /// Its listener pools.
    #[serde(default, with = "ids")]
    pub pools: Vec<ListenerPoolId>,
    /// Its flavor, if it was made with one.
    #[serde(default, deserialize_with = "or_none")]
    pub flavor_id: Option<FlavorId>,
    /// Its availability zone, if it was made for one.
    #[serde(default, deserialize_with = "or_none")]
    pub availability_zone: Option<String>,
    /// Whether it is switched on.
    #[serde(default = "yes")]
    pub admin_state_up: bool,
}

impl LoadBalancer {
    /// All its addresses, the first one first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.vip_address.into_iter().chain(self.additional_vips.iter().filter_map(|vip| vip.ip_address))
    }

    /// Whether OVN carries it, in the network itself.
    #[must_use]
    pub fn is_of_ovn(&self) -> bool {
        self.provider == "ovn"
    }
}

/// A further address of a load balancer. It lies in the same network as the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AdditionalVip {
    /// The subnet that it is from.
    pub subnet_id: SubnetId,
    /// The address; in a request `None` is any free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<IpAddr>,
}

/// A listener: one port number of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Its id.
    pub id: ListenerId,
    /// For people.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// For people.
    #[serde(default, deserialize_with = "or_default")]
    pub description: String,
    /// Whether Octavia is at work on it.
    #[serde(default)]
    pub provisioning_status: Provisioning,
    /// Whether it serves.
    #[serde(default)]
    pub operating_status: Operating,
    /// What it speaks.
    #[serde(default)]
    pub protocol: Protocol,
    /// The port number that it listens on.
    #[serde(default)]
    pub protocol_port: u16,
    /// Where its connections go.
    #[serde(default)]
    pub default_pool_id: Option<ListenerPoolId>,
    /// The most connections at once; -1: as many as wanted.
    #[serde(default)]
    pub connection_limit: Option<i64>,
    /// How long a client may be silent, in milliseconds.
    #[serde(default)]
    pub timeout_client_data: Option<u64>,
    /// How long connecting to a member may take, in milliseconds.
    #[serde(default)]
    pub timeout_member_connect: Option<u64>,
    /// How long a member may be silent, in milliseconds.
    #[serde(default)]
    pub timeout_member_data: Option<u64>,
    /// How long to wait for packets to be inspected, in milliseconds.
    #[serde(default)]
    pub timeout_tcp_inspect: Option<u64>,
    /// Only clients in these prefixes may connect; empty: all. The text is Octavia's.
    #[serde(default, deserialize_with = "or_default")]
    pub allowed_cidrs: Vec<String>,
    /// HTTP headers that it adds, such as `X-Forwarded-For: true`.
    #[serde(default, deserialize_with = "or_default")]
    pub insert_headers: BTreeMap<String, String>,
    /// The load balancer that it is of.
    #[serde(default, with = "ids")]
    pub loadbalancers: Vec<LoadBalancerId>,
    /// Its tags.
    #[serde(default, deserialize_with = "or_default")]
    pub tags: Vec<String>,
}

/// A listener pool: the members that connections are spread over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its id.
    pub id: ListenerPoolId,
    /// For people.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// For people.
    #[serde(default, deserialize_with = "or_default")]
    pub description: String,
    /// Whether Octavia is at work on it.
    #[serde(default)]
    pub provisioning_status: Provisioning,
    /// Whether it serves.
    #[serde(default)]
    pub operating_status: Operating,
    /// What its members speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// How a member is chosen.
    #[serde(default)]
    pub lb_algorithm: Algorithm,
    /// What binds a client to one member, if anything.
    #[serde(default)]
    pub session_persistence: Option<SessionPersistence>,
    /// The listeners that send to it.
    #[serde(default, with = "ids")]
    pub listeners: Vec<ListenerId>,
    /// The load balancer that it is of.
    #[serde(default, with = "ids")]
    pub loadbalancers: Vec<LoadBalancerId>,
    /// What watches its members.
    #[serde(default)]
    pub healthmonitor_id: Option<HealthMonitorId>,
    /// Its members.
    #[serde(default, with = "ids")]
    pub members: Vec<MemberId>,
    /// Its tags.
    #[serde(default, deserialize_with = "or_default")]
    pub tags: Vec<String>,
}

/// What binds a client to one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPersistence {
    /// By what.
    #[serde(rename = "type")]
    pub kind: Persistence,
    /// Name of the cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_name: Option<String>,
    /// For how long after its last packet, in seconds; only for UDP and SCTP with `SOURCE_IP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence_timeout: Option<u32>,
    /// The netmask of clients that count as one; only for UDP and SCTP with `SOURCE_IP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence_granularity: Option<String>,
}

impl SessionPersistence {
    /// By the client's address.
    #[must_use]
    pub fn source_ip() -> Self {
        Self {
            kind: Persistence::SourceIp,
            cookie_name: None,
            persistence_timeout: None,
            persistence_granularity: None,
        }
    }
}

/// A member of a listener pool: an address and port number that connections are sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// For people; Kuryr writes `<namespace>/<pod>`.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port number.
    pub protocol_port: u16,
    /// Its share of the connections, 0 to 256; 0: it gets no new ones.
    #[serde(default)]
    pub weight: u16,
    /// The subnet from which the load balancer reaches it.
    #[serde(default)]
    pub subnet_id: Option<SubnetId>,
    /// Whether Octavia is at work on it.
    #[serde(default)]
    pub provisioning_status: Provisioning,
    /// Whether it serves.
    #[serde(default)]
    pub operating_status: Operating,
    /// Whether it is used only when no other serves.
    #[serde(default, deserialize_with = "or_default")]
    pub backup: bool,
    /// Its tags.
    #[serde(default, deserialize_with = "or_default")]
    pub tags: Vec<String>,
}

/// What watches the members of a listener pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthMonitor {
    /// Its id.
    pub id: HealthMonitorId,
    /// For people.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Whether Octavia is at work on it.
    #[serde(default)]
    pub provisioning_status: Provisioning,
    /// Whether it works.
    #[serde(default)]
    pub operating_status: Operating,
    /// How it asks.
    #[serde(default, rename = "type")]
    pub kind: MonitorType,
    /// Time between two questions, in seconds.
    #[serde(default)]
    pub delay: u32,
    /// How long a member may take to answer, in seconds.
    #[serde(default)]
    pub timeout: u32,
    /// Good answers after which a member is up.
    #[serde(default)]
    pub max_retries: u32,
    /// Missing answers after which a member is down.
    #[serde(default)]
    pub max_retries_down: u32,
    /// The HTTP method.
    #[serde(default)]
    pub http_method: Option<String>,
    /// The path of the HTTP request.
    #[serde(default)]
    pub url_path: Option<String>,
    /// The HTTP statuses that are good: `200`, `200,202`, `200-204`.
    #[serde(default)]
    pub expected_codes: Option<String>,
    /// The listener pool that it watches.
    #[serde(default, with = "ids")]
    pub pools: Vec<ListenerPoolId>,
    /// Its tags.
    #[serde(default, deserialize_with = "or_default")]
    pub tags: Vec<String>,
}

fn yes() -> bool {
    true
}

/// Octavia writes `null` for what was never said.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Some releases write an empty text for what there is not.
fn or_none<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    text.filter(|text| !text.is_empty()).map(|text| text.parse().map_err(D::Error::custom)).transpose()
}

/// Octavia's way to name others: `[{"id": "..."}]`.
mod ids {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Named<I> {
        id: I,
    }

    pub(super) fn serialize<I: Serialize + Copy, S: Serializer>(ids: &[I], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(ids.iter().map(|id| Named { id: *id }))
    }

    pub(super) fn deserialize<'de, I, D>(deserializer: D) -> Result<Vec<I>, D::Error>
    where
        I: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        let named: Option<Vec<Named<I>>> = Option::deserialize(deserializer)?;
        Ok(named.unwrap_or_default().into_iter().map(|named| named.id).collect())
    }
}

#[cfg(test)]
mod tests;
