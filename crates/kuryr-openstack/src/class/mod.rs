//! Who can do something about an error: the one mapping of every error to what happens next.

use crate::{AuthError, Error, ErrorKind, Refusal};
use http::Method;
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
            ErrorKind::Refused(refusal) => refusal_class(self.method(), refusal),
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
}

fn auth_class(error: &AuthError) -> Class {
    if error.is_transient() { Class::RetryLater { after: None } } else { Class::Operator(Waits::Configuration) }
}

fn refusal_class(method: &Method, refusal: &Refusal) -> Class {
    let later = Class::RetryLater { after: refusal.retry_after };
    let kind = refusal.kind.as_str();
    match refusal.status {
        412 => Class::RetryNow,
        400 | 409 if exhausted(kind) => Class::Operator(Waits::Exhausted),
        // Octavia answers 403 where Neutron answers 409.
        403 | 409 if quota(kind, &refusal.message) => Class::Operator(Waits::Quota),
        403 => Class::Operator(Waits::Forbidden),
        400 if kind == "AllowedAddressPairExhausted" => Class::Operator(Waits::Configuration),
        400 | 409 if owners(kind) => Class::Owner,
        409 => conflict_class(kind, later),
        // What a new object is to be made of is gone: a network, subnet or group that the configuration names.
        404 if method == Method::POST => Class::Operator(Waits::Configuration),
        // No token is good enough; a redirect to another address; what the provider cannot do (Octavia).
        401 | 300..=399 | 501 => Class::Operator(Waits::Configuration),
        // A 404 means that the object itself is gone: the next look at it will see that.
        404 | 408 | 425 | 429 | 500.. => later,
        _ => Class::Bug,
    }
}

fn conflict_class(kind: &str, later: Class) -> Class {
    match kind {
        "SecurityGroupRuleExists" | "StaleDataError" | "RevisionNumberConstraintFailed" => Class::RetryNow,
        // Immutable load balancers, things still in use: something else has to happen first.
        _ => later,
    }
}

fn exhausted(kind: &str) -> bool {
    kind.starts_with("IpAddressGenerationFailure")
        || matches!(kind, "ExternalIpAddressExhausted" | "SubnetAllocationError" | "NoMoreAddresses" | "NoMoreIps")
}

fn quota(kind: &str, message: &str) -> bool {
    matches!(kind, "OverQuota" | "SubnetPoolQuotaExceeded" | "QuotaExceeded")
        || message.starts_with("Quota has been met")
        || message.starts_with("Quota exceeded")
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
            (Method::POST, 403, "", "Quota has been met for resources: Load Balancer", Operator(Quota)),
            (Method::POST, 409, "IpAddressGenerationFailure", "No more IP addresses", Operator(Exhausted)),
            (Method::POST, 409, "IpAddressGenerationFailureAllSubnets", "", Operator(Exhausted)),
            (Method::POST, 400, "SubnetAllocationError", "Insufficient prefix space", Operator(Exhausted)),
            (Method::POST, 400, "ExternalIpAddressExhausted", "", Operator(Exhausted)),
            (Method::POST, 403, "PolicyNotAuthorized", "", Operator(Forbidden)),
            (Method::GET, 401, "Unauthorized", "", Operator(Configuration)),
            (Method::PUT, 400, "AllowedAddressPairExhausted", "", Operator(Configuration)),
            (Method::POST, 404, "NetworkNotFound", "", Operator(Configuration)),
            (Method::POST, 501, "", "The ovn provider does not support L7", Operator(Configuration)),
            (Method::GET, 302, "", "", Operator(Configuration)),
            (Method::PUT, 404, "PortNotFound", "", LATER),
            (Method::POST, 409, "IpAddressInUse", "", Owner),
            (Method::POST, 400, "InvalidIpForSubnet", "", Owner),
            (Method::PUT, 409, "", "Load Balancer x is immutable and cannot be updated.", LATER),
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
