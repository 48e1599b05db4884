//! NetworkPolicies: what the plan from what Neutron has to what they come to still has to do.

use super::compare::{Finding, Kind, Prunable, finding};
use kuryr_controller::policy_survey::{Left, Survey};
use kuryr_plan::enforce::Step;

const CONTROLLER: &str = "the controller does it; if it does not: kuryr status";

/// Everything that is wrong with what NetworkPolicies have in Neutron.
pub(super) fn policies(survey: &Survey, findings: &mut Vec<Finding>) {
    findings.extend(survey.left.iter().flat_map(left));
    for (key, uid) in &survey.policies {
        if survey.held.get(key) != Some(uid) {
            let what = "the NetworkPolicy has no KuryrNetworkPolicy, or that of a predecessor".to_owned();
            findings.push(finding(Kind::Missing, "KuryrNetworkPolicy", key, what, CONTROLLER));
        }
    }
    for key in survey.held.keys().filter(|key| !survey.policies.contains_key(*key)) {
        let what = "its NetworkPolicy is gone".to_owned();
        let fix = "Kubernetes' garbage collector deletes it";
        findings.push(finding(Kind::Stray, "KuryrNetworkPolicy", key, what, fix));
    }
}

/// What a step that is left means.
fn left(left: &Left) -> Vec<Finding> {
    let group = "security group";
    let first = || left.groups.first().cloned().unwrap_or_default();
    match &left.step {
        Step::Look => Vec::new(),
        Step::Make(_) => {
            let missing =
                |name: &String| finding(Kind::Missing, group, name, "NetworkPolicies need it".to_owned(), CONTROLLER);
            left.groups.iter().map(missing).collect()
        }
        Step::Read(_, id) => {
            let what = format!("it may be another than it should for {}", first());
            vec![finding(Kind::Mismatch, group, id, what, CONTROLLER)]
        }
        Step::Group(step) => {
            let what = match (step.add.len(), step.remove.len()) {
                (0, 0) => format!("for {}: it has not its tags", first()),
                (add, remove) => format!("for {}: it lacks {add} rules and has {remove} too many", first()),
            };
            vec![finding(Kind::Mismatch, group, &step.id, what, CONTROLLER)]
        }
        Step::Port { port, .. } => {
            let what = "it has other security groups than NetworkPolicies give its pod".to_owned();
            vec![finding(Kind::Mismatch, "port", port, what, CONTROLLER)]
        }
        Step::Delete(_, id) | Step::DeleteStray(id) => {
            let what = "no NetworkPolicy needs it".to_owned();
            let mut finding = finding(Kind::Stray, group, id, what, "prune it: kuryr audit --fix");
            finding.prune = Some(Prunable::SecurityGroup(*id));
            vec![finding]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuryr_model::ObjectKey;

    #[test]
    fn what_is_left_to_do_is_what_is_wrong() {
        let id = "00000000-0000-0000-0000-000000000001".parse().unwrap();
        let left = vec![
            Left { step: Step::Make(vec![]), groups: vec!["policy shop/web".into(), "node n1".into()] },
            Left { step: Step::DeleteStray(id), groups: vec![] },
        ];
        let (web, old) = (ObjectKey::new("shop", "web"), ObjectKey::new("shop", "old"));
        let survey = Survey {
            left,
            policies: [(web.clone(), "u1".into())].into(),
            held: [(web, "u0".into()), (old, "u2".into())].into(),
        };
        let mut findings = Vec::new();
        policies(&survey, &mut findings);
        let short: Vec<String> =
            findings.iter().map(|it| format!("{} {} {}", it.kind.as_str(), it.subject, it.id)).collect();
        let wanted = [
            "missing security group policy shop/web".to_owned(),
            "missing security group node n1".to_owned(),
            format!("stray security group {id}"),
            "missing KuryrNetworkPolicy shop/web".to_owned(),
            "stray KuryrNetworkPolicy shop/old".to_owned(),
        ];
        assert_eq!(short, wanted);
        assert_eq!(findings[2].prune, Some(Prunable::SecurityGroup(id)));
    }
}
