use super::*;
use crate::{Error, ErrorKind, Service};
use std::time::Duration;

fn error(method: Method, status: u16, message: &str) -> Error {
    let refusal = Refusal { status, message: message.into(), ..Refusal::default() };
    Error::new(Service::LoadBalancer, method, "/lbaas/x".into(), "req-1".into(), ErrorKind::Refused(refusal))
}

const LATER: Class = Class::RetryLater { after: None };

#[test]
fn every_answer_of_octavia_has_one_class() {
    use Class::{Bug, Operator, Owner, RetryNow};
    use Waits::{Configuration, Exhausted, Forbidden, Quota};
    let table = [
        (Method::PUT, 409, "Load Balancer 5c1 is immutable and cannot be updated.", LATER),
        (Method::PUT, 409, "Pool 5c1 is immutable and cannot be updated.", LATER),
        (Method::DELETE, 409, "Invalid state PENDING_UPDATE of loadbalancer resource 5c1", LATER),
        (Method::POST, 403, "Quota has been met for resources: Load Balancer", Operator(Quota)),
        (Method::PUT, 403, "Quota has been met for resources: Member", Operator(Quota)),
        (Method::POST, 500, "Provider 'ovn' reports error: Quota exceeded for resources: ['port'].", Operator(Quota)),
        (Method::POST, 413, "Quota has been met.", Operator(Quota)),
        (Method::POST, 403, "Policy does not allow this request to be performed.", Operator(Forbidden)),
        (Method::PUT, 413, "", Operator(Configuration)),
        // The address, from Octavia's own port and from the OVN provider's.
        (
            Method::POST,
            409,
            "Error creating neutron port on network 5c1 due to IP address 10.96.0.7 already allocated in subnet 5c2.",
            Owner,
        ),
        (
            Method::POST,
            500,
            "Provider 'ovn' reports error: IP address 10.96.0.7 already allocated in subnet 5c2",
            Owner,
        ),
        (
            Method::POST,
            500,
            "Provider 'ovn' reports error: Unable to complete operation for network 5c1. The IP address 10.96.0.7 is in \
             use.",
            Owner,
        ),
        (
            Method::POST,
            500,
            "Provider 'ovn' reports error: IP address 10.1.0.7 is not a valid IP for the specified subnet.",
            Owner,
        ),
        (
            Method::POST,
            400,
            "Error creating neutron port on network 5c1 due to IP address 10.1.0.7 does not belong to subnet 5c2.",
            Owner,
        ),
        (
            Method::POST,
            400,
            "Validation failure: Supplied network does not contain a subnet for VIP address specified.",
            Owner,
        ),
        (Method::POST, 400, "Validation failure: Port 5c1 is already used by device 5c2 ", Owner),
        (
            Method::POST,
            500,
            "Provider 'ovn' reports error: No more IP addresses available on network 5c1.",
            Operator(Exhausted),
        ),
        (
            Method::POST,
            409,
            "Error creating neutron port on network 5c1 due to No more IP addresses available for subnet 5c2.",
            Operator(Exhausted),
        ),
        (
            Method::POST,
            400,
            "Validation failure: Subnet(s) in the supplied network do not contain enough available IPs.",
            Operator(Exhausted),
        ),
        // What is there already.
        (
            Method::POST,
            409,
            "Another Listener on this Load Balancer is already using protocol TCP and protocol_port 80",
            RetryNow,
        ),
        (Method::POST, 409, "Another Listener on this Load Balancer is already using protocol_port 80", RetryNow),
        (Method::PUT, 409, "Another member on this pool is already using ip 10.0.0.1 on protocol_port 80", RetryNow),
        (Method::POST, 409, "This pool already has a health monitor", RetryNow),
        (Method::POST, 409, "This listener already has a default pool", RetryNow),
        (Method::POST, 409, "Already an entity with that specified id.", RetryNow),
        // What the provider cannot do, or this Octavia.
        (
            Method::POST,
            501,
            "Provider 'ovn' does not support a requested option: OVN provider does not support allowed_cidrs option",
            Owner,
        ),
        (
            Method::PUT,
            501,
            "Provider 'ovn' does not support a requested action: This feature is not implemented by the provider.",
            Owner,
        ),
        (Method::POST, 501, "Provider 'nsx' was not found.", Operator(Configuration)),
        (Method::POST, 400, "Provider 'nsx' is not enabled.", Operator(Configuration)),
        (Method::POST, 400, "Unknown attribute for argument load_balancer.loadbalancer: additional_vips", Owner),
        (
            Method::POST,
            400,
            "Invalid input for field/attribute protocol. Value: 'SCTP'. Value should be one of: HTTP, TCP, UDP",
            Owner,
        ),
        (Method::POST, 400, "Invalid input for field/attribute name. Value: 'x'. Value should have a maximum", Bug),
        // What is configured otherwise, or gone.
        (
            Method::POST,
            400,
            "Validation failure: use of vip_port_id is disallowed by this deployment's configuration.",
            Operator(Configuration),
        ),
        (Method::POST, 400, "Subnet 5c1 not found.", Operator(Configuration)),
        (Method::PUT, 404, "Subnet 5c1 not found.", LATER),
        (Method::POST, 404, "Load Balancer 5c1 not found.", LATER),
        (Method::POST, 404, "Flavor 5c1 not found.", Operator(Configuration)),
        (Method::POST, 404, "", Operator(Configuration)),
        (Method::PUT, 404, "Listener 5c1 not found.", LATER),
        // What no Octavia does.
        (
            Method::POST,
            400,
            "Validation failure: The request delay value 1 should be larger than 3 for UDP-CONNECT health monitor type.",
            Owner,
        ),
        (Method::PUT, 400, "169.254.169.254 is not a valid option for member address", Owner),
        (Method::GET, 400, "Supplied pagination marker '5c1' is not valid.", RetryNow),
        (Method::GET, 400, "One or more arguments are either duplicate or invalid", Bug),
        (Method::POST, 503, "Project busy. Unable to lock the project. Please try again.", LATER),
        (Method::POST, 500, "Provider 'ovn' reports error: An unknown driver error occurred.", LATER),
        (Method::POST, 500, "", LATER),
        (Method::POST, 502, "", LATER),
        (Method::GET, 401, "The request you have made requires authentication.", Operator(Configuration)),
    ];
    for (method, status, message, class) in table {
        assert_eq!(error(method, status, message).class(), class, "{status} {message}");
    }
}

#[test]
fn a_limit_for_requests_per_time_is_waited_for() {
    let after = Some(Duration::from_secs(5));
    let refusal = Refusal { status: 413, retry_after: after, ..Refusal::default() };
    let error =
        Error::new(Service::LoadBalancer, Method::PUT, "/x".into(), "req-1".into(), ErrorKind::Refused(refusal));
    assert_eq!(error.class(), Class::RetryLater { after });
}

#[test]
fn an_immutable_load_balancer_is_known_by_its_sentence_and_says_its_state_where_octavia_does() {
    let state = |message| error(Method::DELETE, 409, message).immutable_state();
    assert_eq!(state("Invalid state PENDING_DELETE of loadbalancer resource 5c1"), Some(Provisioning::PendingDelete));
    assert_eq!(state("Invalid state ERROR of loadbalancer resource 5c1"), Some(Provisioning::Error));
    assert_eq!(state("Load Balancer 5c1 is immutable and cannot be updated."), None);
    for immutable in [
        "Load Balancer 5c1 is immutable and cannot be updated.",
        "Pool 5c1 is immutable and cannot be updated.",
        "Invalid state ERROR of loadbalancer resource 5c1",
    ] {
        assert!(error(Method::PUT, 409, immutable).is_immutable(), "{immutable}");
        assert!(!error(Method::PUT, 500, immutable).is_immutable(), "{immutable}");
    }
    assert!(!error(Method::PUT, 409, "This pool already has a health monitor").is_immutable());
}

#[test]
fn what_cannot_be_done_and_what_is_there_already_have_questions_of_their_own() {
    let option = "Provider 'ovn' does not support a requested option: OVN provider does not support HTTP protocol";
    assert!(error(Method::POST, 501, option).is_unsupported());
    assert!(!error(Method::POST, 501, "Provider 'nsx' was not found.").is_unsupported());
    assert!(!error(Method::POST, 500, option).is_unsupported());
    assert!(error(Method::POST, 409, "This pool already has a health monitor").is_duplicate());
    assert!(!error(Method::POST, 409, "Pool 5c1 is immutable and cannot be updated.").is_duplicate());
    let taken = "Provider 'ovn' reports error: IP address 10.96.0.7 already allocated in subnet 5c2";
    assert!(error(Method::POST, 500, taken).is_address_in_use());
    assert!(!error(Method::POST, 500, "Provider 'ovn' reports error: No more IP addresses").is_address_in_use());
}

#[test]
fn a_refused_address_is_no_load_balancer_although_the_status_is_500() {
    let taken = "Provider 'ovn' reports error: IP address 10.96.0.7 already allocated in subnet 5c2";
    assert!(!error(Method::POST, 500, taken).is_ambiguous());
    assert!(error(Method::POST, 500, "Provider 'ovn' reports error: timed out").is_ambiguous());
}
