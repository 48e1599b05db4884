//! Who can do something about an error: the one mapping of every error to what happens next.

mod octavia;

use crate::{AuthError, Error, ErrorKind, Refusal, Service};
use http::Method;
use kuryr_model::lb::Provisioning;
use std::time::Duration;

/// What is to be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Read again and try at once: somebody else was faster.
    RetryNow,
    /// Try again with back-off and jitter, not before `after` where the service says so.
    RetryLater {
        /// The service's `Retry-After`.
        after: Option<Duration>,
    },
    /// Wait for somebody who runs the cloud or Kuryr, and show them why.
    Operator(Waits),
    /// The owner of the Kubernetes object asked for something impossible.
    Owner,
    /// Kuryr, or the service, is wrong.
    Bug,
}

/// What an operator has to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// A quota is used up.
    Quota,
    /// A subnet or pool has no free address or prefix.
    Exhausted,
    /// The user may not do this.
    Forbidden,
    /// A setting is wrong: of Kuryr, or of the cloud.
    Configuration,
}

impl Error {
    /// What is to be done about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self.kind() {
            ErrorKind::Connect(_) | ErrorKind::Broken(_) | ErrorKind::Timeout(_) | ErrorKind::NotSent(_) => {
                Class::RetryLater { after: None }
            }
            ErrorKind::Tls(_) | ErrorKind::NoEndpoint(_) => Class::Operator(Waits::Configuration),
            ErrorKind::Malformed(_) => Class::Bug,
            ErrorKind::Auth(error) => auth_class(error),
            ErrorKind::Refused(refusal) => refusal_class(self.service(), self.method(), refusal),
        }
    }

    /// Whether a quota is used up.
    #[must_use]
    pub fn is_quota(&self) -> bool {
        self.class() == Class::Operator(Waits::Quota)
    }

    /// Whether a subnet, or a pool of subnets, is full.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.class() == Class::Operator(Waits::Exhausted)
    }

    /// Whether the address that was asked for is another's: of Neutron, or of Octavia, which asked Neutron for it.
    #[must_use]
    pub fn is_address_in_use(&self) -> bool {
        self.refusal().is_some_and(|refusal| {
            matches!(refusal.kind.as_str(), "IpAddressInUse" | "IpAddressAlreadyAllocated")
                || octavia::address_taken(&refusal.message)
        })
    }

    /// Whether Neutron refused subports for one of them, and would take the others: a port or a segmentation id in use, a
    /// port that is gone, or is not on the trunk.
    #[must_use]
    pub fn is_about_subports(&self) -> bool {
        self.service() == Service::Network
            && self.refusal().is_some_and(|refusal| match refusal.kind.as_str() {
                "TrunkPortInUse"
                | "ParentPortInUse"
                | "DuplicateSubPort"
                | "PortInUse"
                | "SubPortMtuGreaterThanTrunkPortMtu" => refusal.status == 409,
                "PortNotFound" | "SubPortNotFound" => refusal.status == 404,
                _ => false,
            })
    }

    /// Whether the trunk that the path names is gone.
    #[must_use]
    pub fn is_trunk_gone(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.status == 404 && refusal.kind == "TrunkNotFound")
    }

    /// Whether Neutron does not delete a port because a trunk carries it.
    #[must_use]
    pub fn is_subport_in_use(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.status == 409 && refusal.kind == "PortInUseAsSubPort")
    }

    /// Whether a port may use no more addresses beside its own: Neutron's setting `max_allowed_address_pair`.
    #[must_use]
    pub fn is_pairs_exhausted(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.kind == "AllowedAddressPairExhausted")
    }

    /// Whether Octavia takes no change of the load balancer now: it is at work on it, and the same change will do when
    /// it is `ACTIVE`; or it, or what the change is about, is in `ERROR`, and only a look at it tells.
    #[must_use]
    pub fn is_immutable(&self) -> bool {
        self.octavias(octavia::immutable)
    }

    /// Whether Octavia's provider cannot do what was asked for, or this Octavia is too old to have heard of it. The
    /// message says what; asking again changes nothing.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.octavias(octavia::unsupported)
    }

    /// Whether Octavia has one already in that place: that port number, that member, that listener pool's health
    /// monitor. Looking tells whose it is.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        self.octavias(octavia::duplicate)
    }

    /// The state that makes a load balancer refuse, where Octavia says it.
    pub(crate) fn immutable_state(&self) -> Option<Provisioning> {
        self.refusal().filter(|refusal| refusal.status == 409).and_then(octavia::immutable_state)
    }

    fn octavias(&self, question: impl Fn(&Refusal) -> bool) -> bool {
        self.service() == Service::LoadBalancer && self.refusal().is_some_and(question)
    }
}

fn auth_class(error: &AuthError) -> Class {
    if error.is_transient() { Class::RetryLater { after: None } } else { Class::Operator(Waits::Configuration) }
}

fn refusal_class(service: Service, method: &Method, refusal: &Refusal) -> Class {
    let later = Class::RetryLater { after: refusal.retry_after };
    if service == Service::LoadBalancer
        && let Some(class) = octavia::class(method, refusal, later)
    {
        return class;
    }
    let kind = refusal.kind.as_str();
    match refusal.status {
        412 => Class::RetryNow,
        400 | 409 if exhausted(kind) => Class::Operator(Waits::Exhausted),
        403 | 409 if quota(kind, &refusal.message) => Class::Operator(Waits::Quota),
        403 => Class::Operator(Waits::Forbidden),
        400 if kind == "AllowedAddressPairExhausted" => Class::Operator(Waits::Configuration),
        // Floating IPs: no way from the external network to the subnet; not an external network.
        404 if kind == "ExternalGatewayForFloatingIPNotFound" => Class::Operator(Waits::Configuration),
        400 if refusal.message.contains("not a valid external network") => Class::Operator(Waits::Configuration),
        // Trunks: somebody switched it off, or has to mend it; a pod network of a larger MTU than the nodes'.
        409 if matches!(kind, "TrunkDisabled" | "TrunkInErrorState" | "SubPortMtuGreaterThanTrunkPortMtu") => {
            Class::Operator(Waits::Configuration)
        }
        400 | 409 if owners(kind) => Class::Owner,
        409 => conflict_class(kind, later),
        // What a new object is to be made of is gone: a network, subnet or group that the configuration names.
        404 if method == Method::POST => Class::Operator(Waits::Configuration),
        // No token is good enough; a redirect to another address; a service that is not all there.
        401 | 300..=399 | 501 => Class::Operator(Waits::Configuration),
        // A 404 means that the object itself is gone: the next look at it will see that.
        404 | 408 | 425 | 429 | 500.. => later,
        _ => Class::Bug,
    }
}

fn conflict_class(kind: &str, later: Class) -> Class {
    match kind {
        "SecurityGroupRuleExists" | "StaleDataError" | "RevisionNumberConstraintFailed" => Class::RetryNow,
        // Things still in use: something else has to happen first.
        _ => later,
    }
}

fn exhausted(kind: &str) -> bool {
    kind.starts_with("IpAddressGenerationFailure")
        || matches!(kind, "ExternalIpAddressExhausted" | "SubnetAllocationError" | "NoMoreAddresses" | "NoMoreIps")
}

fn quota(kind: &str, message: &str) -> bool {
    matches!(kind, "OverQuota" | "SubnetPoolQuotaExceeded" | "QuotaExceeded") || message.starts_with("Quota exceeded")
}

/// An address that an annotation asks for and that cannot be had.
fn owners(kind: &str) -> bool {
    matches!(
        kind,
        "InvalidIpForNetwork"
            | "InvalidIpForSubnet"
            | "IpAddressInUse"
            | "IpAddressAlreadyAllocated"
            | "MacAddressInUse"
            | "InvalidAllocationPool"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Service, catalog::Catalog};
    use std::sync::Arc;

    fn error(method: Method, kind: ErrorKind) -> Error {
        Error::new(Service::Network, method, "/v2.0/ports".into(), "req-1".into(), kind)
    }

    fn refused(method: Method, status: u16, kind: &str, message: &str) -> Error {
        let refusal =
            Refusal { status, kind: kind.into(), message: message.into(), retry_after: Some(Duration::from_secs(9)) };
        error(method, ErrorKind::Refused(refusal))
    }

    const LATER: Class = Class::RetryLater { after: Some(Duration::from_secs(9)) };
    const UNKNOWN: Class = Class::RetryLater { after: None };

    #[test]
    fn every_answer_has_one_class() {
        use Class::{Bug, Operator, Owner, RetryNow};
        use Waits::{Configuration, Exhausted, Forbidden, Quota};
        let table = [
            (Method::PUT, 412, "RevisionNumberConstraintFailed", "", RetryNow),
            (Method::POST, 409, "SecurityGroupRuleExists", "", RetryNow),
            (Method::POST, 409, "OverQuota", "Quota exceeded for resources: ['port'].", Operator(Quota)),
            (Method::POST, 409, "IpAddressGenerationFailure", "No more IP addresses", Operator(Exhausted)),
            (Method::POST, 409, "IpAddressGenerationFailureAllSubnets", "", Operator(Exhausted)),
            (Method::POST, 400, "SubnetAllocationError", "Insufficient prefix space", Operator(Exhausted)),
            (Method::POST, 400, "ExternalIpAddressExhausted", "", Operator(Exhausted)),
            (Method::POST, 403, "PolicyNotAuthorized", "", Operator(Forbidden)),
            (Method::GET, 401, "Unauthorized", "", Operator(Configuration)),
            (Method::PUT, 400, "AllowedAddressPairExhausted", "", Operator(Configuration)),
            (Method::POST, 404, "NetworkNotFound", "", Operator(Configuration)),
            (Method::PUT, 404, "ExternalGatewayForFloatingIPNotFound", "", Operator(Configuration)),
            (
                Method::POST,
                400,
                "BadRequest",
                "Bad floatingip request: Network x is not a valid external network.",
                Operator(Configuration),
            ),
            (Method::POST, 409, "FloatingIPPortAlreadyAssociated", "", LATER),
            (Method::PUT, 409, "TrunkInErrorState", "", Operator(Configuration)),
            (Method::PUT, 409, "TrunkDisabled", "", Operator(Configuration)),
            (Method::PUT, 409, "SubPortMtuGreaterThanTrunkPortMtu", "", Operator(Configuration)),
            (Method::PUT, 409, "DuplicateSubPort", "", LATER),
            (Method::DELETE, 409, "PortInUseAsSubPort", "", LATER),
            (Method::POST, 501, "", "", Operator(Configuration)),
            (Method::GET, 302, "", "", Operator(Configuration)),
            (Method::PUT, 404, "PortNotFound", "", LATER),
            (Method::POST, 409, "IpAddressInUse", "", Owner),
            (Method::POST, 400, "InvalidIpForSubnet", "", Owner),
            (Method::DELETE, 409, "NetworkInUse", "", LATER),
            (Method::GET, 429, "", "", LATER),
            (Method::GET, 408, "", "", LATER),
            (Method::POST, 500, "HTTPInternalServerError", "", LATER),
            (Method::POST, 502, "", "", LATER),
            (Method::POST, 503, "MacAddressGenerationFailure", "", LATER),
            (Method::POST, 400, "HTTPBadRequest", "Unrecognized attribute(s) 'x'", Bug),
            (Method::GET, 414, "", "", Bug),
        ];
        for (method, status, kind, message, class) in table {
            assert_eq!(refused(method, status, kind, message).class(), class, "{status} {kind} {message}");
        }
    }

    #[test]
    fn a_refusal_of_subports_is_told_from_one_of_their_trunk() {
        for (status, kind, about) in [
            (409, "DuplicateSubPort", true),
            (409, "TrunkPortInUse", true),
            (409, "PortInUse", true),
            (404, "PortNotFound", true),
            (404, "SubPortNotFound", true),
            (404, "TrunkNotFound", false),
            (409, "TrunkInErrorState", false),
            (409, "OverQuota", false),
            (503, "", false),
        ] {
            let error = refused(Method::PUT, status, kind, "");
            assert_eq!((error.is_about_subports(), error.is_trunk_gone()), (about, kind == "TrunkNotFound"), "{kind}");
        }
    }

    #[test]
    fn every_failure_without_an_answer_has_one_class() {
        let no_endpoint = Catalog::default().url(Service::Network).unwrap_err();
        let config = Class::Operator(Waits::Configuration);
        let table = [
            (ErrorKind::Connect("refused".into()), UNKNOWN),
            (ErrorKind::Broken("reset".into()), UNKNOWN),
            (ErrorKind::Timeout(Duration::from_secs(1)), UNKNOWN),
            (ErrorKind::NotSent(Duration::from_secs(1)), UNKNOWN),
            (ErrorKind::Tls("unknown issuer".into()), config),
            (ErrorKind::NoEndpoint(no_endpoint), config),
            (ErrorKind::Malformed("not JSON".into()), Class::Bug),
            (ErrorKind::Auth(Arc::new(AuthError::expired_token())), config),
        ];
        for (kind, class) in table {
            let error = error(Method::POST, kind);
            assert_eq!(error.class(), class, "{error}");
        }
    }

    #[test]
    fn only_what_may_have_been_done_is_ambiguous() {
        let timeout = || ErrorKind::Timeout(Duration::from_secs(1));
        assert!(error(Method::POST, timeout()).is_ambiguous());
        assert!(error(Method::POST, ErrorKind::Broken("reset".into())).is_ambiguous());
        assert!(refused(Method::POST, 500, "", "").is_ambiguous());
        assert!(refused(Method::PUT, 504, "", "").is_ambiguous());
        assert!(!error(Method::GET, timeout()).is_ambiguous());
        assert!(!error(Method::POST, ErrorKind::Connect("refused".into())).is_ambiguous());
        assert!(!error(Method::POST, ErrorKind::NotSent(Duration::from_secs(1))).is_ambiguous());
        assert!(!refused(Method::POST, 409, "OverQuota", "").is_ambiguous());
        assert!(!refused(Method::POST, 429, "", "").is_ambiguous());
    }
}
