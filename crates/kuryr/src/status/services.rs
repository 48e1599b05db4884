//! Services: those whose load balancers are not right.

use super::{
    collect::{CloudFacts, Held, Known, ServiceFacts},
    judge::{Area, Check, NAMED, State, check},
};
use crate::view::Unreadable;
use jiff::{SignedDuration, Timestamp};
use kuryr_model::{KuryrLoadBalancer, kuryr_load_balancer::LoadBalancerState};

/// Making a load balancer takes some providers this long, and that is no reason to worry.
const PATIENCE: SignedDuration = SignedDuration::from_mins(3);

/// Whether the cloud has what Services need.
pub(super) fn octavia(cloud: &CloudFacts, checks: &mut Vec<Check>) {
    checks.push(match &cloud.services {
        Ok(None) => check(Area::OpenStack, "Octavia", State::Ok, &cloud.octavia_url, ""),
        Ok(Some(why)) => check(Area::OpenStack, "Octavia", State::Note, format!("Services are off: {why}"), ""),
        Err(error) => check(Area::OpenStack, "Octavia", State::Wrong, error, "see [services]"),
    });
}

/// Services that wait.
pub(super) fn services(now: Timestamp, facts: &Known<Vec<ServiceFacts>>, on: bool, checks: &mut Vec<Check>) {
    if !on {
        return;
    }
    let facts = match facts {
        Ok(facts) => facts,
        Err(error) => return checks.push(check(Area::Services, "Services", State::Wrong, error, "")),
    };
    let (mut good, mut busy, mut wrong) = (0usize, 0usize, Vec::new());
    for service in facts.iter().filter(|service| service.wants || !matches!(service.held, Held::Nothing)) {
        match progress(now, service) {
            Progress::Good => good += 1,
            Progress::Busy => busy += 1,
            Progress::Wrong(why, fix) => wrong.push((service, why, fix)),
        }
    }
    let detail = format!("{good} are served, {busy} are in progress, {} are not right", wrong.len());
    // The Services themselves follow: a fault counts once.
    let state = if wrong.is_empty() { State::Ok } else { State::Note };
    checks.push(check(Area::Services, "Services", state, detail, ""));
    for (service, why, fix) in wrong.iter().take(NAMED) {
        let describe = format!("kuryr describe service {}", service.key);
        checks.push(check(Area::Services, &service.key.to_string(), State::Wrong, why, fix.unwrap_or(&describe)));
    }
    if wrong.len() > NAMED {
        let more = format!("{} more are not right", wrong.len() - NAMED);
        checks.push(check(Area::Services, "...", State::Wrong, more, ""));
    }
}

enum Progress {
    Good,
    Busy,
    /// Why, and what to do if that is more than to look closer.
    Wrong(String, Option<&'static str>),
}

fn progress(now: Timestamp, service: &ServiceFacts) -> Progress {
    let long = |since: Timestamp| now.duration_since(since) > PATIENCE;
    let held = match &service.held {
        Held::Good(held) => held,
        Held::Odd(why) => {
            let why = format!("its KuryrLoadBalancer cannot be read: {why}");
            return Progress::Wrong(why, Some(Unreadable::FIX_BALANCER));
        }
        Held::Nothing => {
            let old = service.created.is_some_and(long);
            let why = "it has no KuryrLoadBalancer: look at the controller's log";
            return if old { Progress::Wrong(why.to_owned(), None) } else { Progress::Busy };
        }
    };
    let state = held.status.as_ref().and_then(|status| status.state);
    match held.ready() {
        Some(ready) if ready.status == "True" => Progress::Good,
        Some(ready) => {
            let waits = matches!(state, Some(LoadBalancerState::Pending | LoadBalancerState::Deleting));
            if waits && !long(ready.last_transition_time.0) {
                return Progress::Busy;
            }
            let message = if ready.message.is_empty() { String::new() } else { format!(": {}", ready.message) };
            Progress::Wrong(format!("{}{message}", ready.reason), None)
        }
        None => match created(held).is_some_and(long) {
            true => {
                let why = "nothing was said of its load balancer yet: look at the controller's log";
                Progress::Wrong(why.to_owned(), None)
            }
            false => Progress::Busy,
        },
    }
}

fn created(held: &KuryrLoadBalancer) -> Option<Timestamp> {
    held.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuryr_model::ObjectKey;
    use serde_json::json;

    fn service(name: &str, ready: Option<(&str, &str, &str)>, since: &str) -> ServiceFacts {
        let status = ready.map(|(status, reason, state)| {
            let condition = json!({"type": "Ready", "status": status, "reason": reason, "message": "the words", "lastTransitionTime": since});
            json!({"state": state, "conditions": [condition]})
        });
        let held = json!({
            "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrLoadBalancer",
            "metadata": {"namespace": "a", "name": name}, "spec": {"serviceUid": "s"}, "status": status,
        });
        let held = ready.map_or(Held::Nothing, |_| Held::Good(Box::new(serde_json::from_value(held).unwrap())));
        ServiceFacts { key: ObjectKey::new("a", name), wants: true, created: since.parse().ok(), held }
    }

    fn judged(facts: Vec<ServiceFacts>) -> Vec<String> {
        let mut checks = Vec::new();
        services("2026-01-01T01:00:00Z".parse().unwrap(), &Ok(facts), true, &mut checks);
        checks.iter().map(|check| format!("{} {}", check.subject, check.detail)).collect()
    }

    #[test]
    fn only_services_that_are_not_right_are_named() {
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-01T00:59:00Z");
        let facts = vec![
            service("good", Some(("True", "Active", "Active")), old),
            service("making", Some(("False", "Pending", "Pending")), new),
            service("fresh", None, new),
            service("slow", Some(("False", "Pending", "Pending")), old),
            service("broken", Some(("False", "QuotaExceeded", "Error")), new),
            service("forgotten", None, old),
        ];
        assert_eq!(
            judged(facts),
            [
                "Services 1 are served, 2 are in progress, 3 are not right",
                "a/slow Pending: the words",
                "a/broken QuotaExceeded: the words",
                "a/forgotten it has no KuryrLoadBalancer: look at the controller's log",
            ]
        );
    }

    #[test]
    fn one_that_cannot_be_read_is_named_with_what_to_do_and_hides_no_other() {
        let now = "2026-01-01T00:59:00Z";
        let odd = ServiceFacts { held: Held::Odd("missing field".into()), ..service("odd", None, now) };
        let left = ServiceFacts { wants: false, held: Held::Odd("missing field".into()), ..service("left", None, now) };
        let facts = vec![odd, left, service("good", Some(("True", "Active", "Active")), now)];
        let mut checks = Vec::new();
        services("2026-01-01T01:00:00Z".parse().unwrap(), &Ok(facts), true, &mut checks);
        assert_eq!(checks[0].detail, "1 are served, 0 are in progress, 2 are not right");
        assert!(checks[1].subject == "a/odd" && checks[1].detail.ends_with("cannot be read: missing field"));
        assert!(checks[1].fix.contains("finalizers") && checks[2].subject == "a/left");
    }
}
