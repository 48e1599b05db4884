//! What cannot be done as a Service asks for it: one entry for its owner, stopping nothing else.

use std::fmt;

/// Something of a Service that is not, or not fully, done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// One word for programs.
    pub reason: Reason,
    /// What it is about: an annotation's or a field's full name, such as `spec.loadBalancerIP`.
    pub about: String,
    /// What is done instead.
    pub effect: Effect,
    /// For people: names the thing, its value and the fix.
    pub message: String,
}

/// What a [`Problem`] leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The Service works in another way than was asked for, as the message says.
    Differs,
    /// The Service goes on without what was asked for.
    Ignored,
    /// The Service is not reachable from outside until this is put right: it must not be exposed in another way than
    /// was asked for.
    NotExposed,
    /// The clusterIP, or a port of it, is not served.
    NotServed,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One word for a problem.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

reasons! {
    /// An annotation has a value that cannot be read.
    BadAnnotation,
    /// Two annotations, or an annotation and a field, exclude each other.
    AnnotationConflict,
    /// A field of the Service has a value that cannot be used.
    BadField,
    /// Kuryr has no such feature.
    NotSupported,
    /// The provider of the load balancer cannot do it.
    NotSupportedByProvider,
    /// It has no effect here.
    NoEffect,
    /// An annotation names a class that the configuration does not have.
    UnknownClass,
    /// There is no such subnet in the floating network, or it cannot be seen.
    UnknownSubnet,
    /// The cluster has no network for floating IPs.
    NoFloatingNetwork,
    /// `loadBalancerSourceRanges` cannot be enforced, so nothing is exposed.
    SourceRangesNotEnforced,
    /// `Local` traffic policies are not kept: every endpoint gets traffic.
    NotNodeLocal,
    /// Endpoints see the load balancer's address instead of the client's.
    ClientAddressHidden,
    /// NetworkPolicies let different clients reach the endpoints of one port, and the load balancer hides them.
    PoliciesDiffer,
    /// Those whom NetworkPolicies let in are too many for a listener.
    TooManyClients,
    /// NetworkPolicies isolate pods from a load balancer that hides its clients and cannot limit them.
    ClientsNotLimited,
    /// Clients are bound to an endpoint, but not for the time that was asked for.
    AffinityTimeout,
    /// A clusterIP is in no service subnet.
    VipOutsideSubnets,
    /// A clusterIP belongs to somebody else in the service subnet.
    VipTaken,
    /// The load balancer that an annotation names is not there.
    LoadBalancerNotFound,
    /// The load balancer that an annotation names is broken, and not Kuryr's to repair.
    LoadBalancerInError,
    /// Somebody else's listener has the port number.
    ListenerTaken,
    /// The floating IP of `loadBalancerIP` leads to something else, or cannot lead here.
    FloatingIpInUse,
    /// There is no floating IP of the address `loadBalancerIP`, and Kuryr may not make one.
    FloatingIpNotFound,
    /// Other Services still use this Service's load balancer, so it stays for now.
    StillShared,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Problem {
    /// A problem with an annotation or a field.
    pub(crate) fn new(reason: Reason, about: &str, effect: Effect, message: impl Into<String>) -> Self {
        Self { reason, about: about.to_owned(), effect, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_word_in_camel_case() {
        for reason in Reason::ALL {
            let word = reason.as_str();
            assert!(word.starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
            assert!(word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
        }
    }
}
