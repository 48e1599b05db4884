//! What of a NetworkPolicy cannot be read, in words for its owner.

/// The most security group rules that one policy may ask for in one direction, before Services and named ports. An
/// object that fits into the API server could ask for hundreds of millions.
pub const MAX_RULES: usize = 10_000;

/// What of a policy cannot be read, and where it stands in the object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Neither an address block of IPv4 nor one of IPv6.
    #[error("{0}: {1:?} is no address block like 10.0.0.0/8; this entry allows nothing")]
    Block(String, String),
    /// An operator of a later Kubernetes, or a wrong one.
    #[error("{0}: operator {1:?} is none of In, NotIn, Exists, DoesNotExist; {2}")]
    Operator(String, String, Effect),
    /// `In` and `NotIn` need values, `Exists` and `DoesNotExist` must have none.
    #[error("{0}: operator {1} with {2} values; {3}")]
    Values(String, String, usize, Effect),
    /// A peer must say who it is, and in one way only.
    #[error("{0}: must have either ipBlock or selectors; this entry allows nothing")]
    Peer(String),
    /// A protocol that NetworkPolicies do not know.
    #[error("{0}: protocol {1:?} is none of TCP, UDP, SCTP; this entry allows nothing")]
    Protocol(String, String),
    /// Not from 1 to 65535.
    #[error("{0}: {1} is no port number; this entry allows nothing")]
    Number(String, i32),
    /// `endPort` needs a number in `port` that is not higher.
    #[error("{0}: endPort {1} needs a lower or equal number in port; this entry allows nothing")]
    EndPort(String, i32),
    /// A direction that NetworkPolicies do not know.
    #[error("{0}: {1:?} is neither Ingress nor Egress; the pods are isolated in both directions")]
    PolicyType(String, String),
    /// This rule is one too many.
    #[error(
        "{0}: would need more than {MAX_RULES} security group rules, together with those before it; it allows nothing"
    )]
    TooLarge(String),
}

/// What comes of a requirement that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The pods are selected by the other requirements alone, so that none is left open.
    SelectsMore,
    /// The peer matches nobody.
    AllowsNothing,
}

impl std::fmt::Display for Effect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SelectsMore => "pods are selected without this requirement",
            Self::AllowsNothing => "this entry allows nothing",
        })
    }
}
