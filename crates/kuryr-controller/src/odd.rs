//! A `KuryrPort` that cannot be read.
//!
//! Nobody but a person can tell what it should say, and its pod's port may be recorded in nothing else: so nothing is made
//! or deleted for its pod, and the object itself says what to do. When it is deleted, it is let go at once. The port is found
//! again by its mark then: its pod, if there is one, gets the same port in a new `KuryrPort`, and one that nobody wants any
//! more is a stray like others.

use crate::{
    error::{PodError, Reason},
    events::reasons::KURYR_PORT_UNREADABLE,
    lean::OddPort,
    queue::Outcome,
    reconcile::Reconciler,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use kuryr_model::{KuryrPort, PORT_FINALIZER};
use kuryr_plan::pod::Pod;
use serde_json::{Value, json};
use std::sync::Arc;

impl Reconciler {
    /// Does what can be done for a `KuryrPort` that cannot be read, and for the pod of its name.
    pub(crate) async fn keep_apart(&self, odd: &OddPort, pod: Option<&Pod>) -> Outcome {
        if let Some(pod) = pod {
            // When this object goes, the pod's port is looked for before another one is made.
            self.allocator.suspect(&pod.key, &pod.uid);
        }
        let OddPort { key, uid, why, .. } = odd;
        if !odd.deleting {
            let note = note(why);
            tracing::warn!(pod = %key, why, "its KuryrPort cannot be read; it gets no port until that is put right");
            self.events.warn_kuryr_port(key, uid, KURYR_PORT_UNREADABLE, note);
            return Outcome::Settled;
        }
        if odd.finalizers.iter().any(|finalizer| finalizer == PORT_FINALIZER)
            && let Err(error) = self.let_go(odd).await
        {
            tracing::warn!(pod = %key, error = %error, "a KuryrPort that cannot be read cannot be let go; trying again");
            self.metrics.step_failed("release", Reason::KubernetesRefused.as_str());
            return Outcome::Retry(PodError::Kubernetes(Arc::new(error)).retry_after());
        }
        tracing::info!(pod = %key, "let go a KuryrPort that cannot be read");
        if let Some(pod) = pod {
            self.allocator.lend_again(&pod.uid, &odd.ports);
        }
        self.index.remove_port(key, Some(uid));
        self.queue.add(key.clone());
        Outcome::Settled
    }

    async fn let_go(&self, odd: &OddPort) -> Result<(), kube::Error> {
        let api = Api::<KuryrPort>::namespaced(self.client.clone(), &odd.key.namespace);
        let patch = Patch::Merge(without_finalizer(odd));
        // Of the answer no more than the metadata: the rest cannot be read.
        match api.patch_metadata(&odd.key.name, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
            other => other.map(drop),
        }
    }
}

fn note(why: &str) -> String {
    format!(
        "nobody acts on it, for it cannot be read ({why}): put it right, or delete it; then a pod of this name gets its port in \
         a new one"
    )
}

fn without_finalizer(odd: &OddPort) -> Value {
    let left: Vec<&String> = odd.finalizers.iter().filter(|finalizer| *finalizer != PORT_FINALIZER).collect();
    json!({"metadata": {"uid": odd.uid, "resourceVersion": odd.resource_version, "finalizers": left}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuryr_model::ObjectKey;

    #[test]
    fn only_our_own_finalizer_is_taken_away_and_only_from_the_state_that_was_read() {
        let odd = OddPort {
            key: ObjectKey::new("a", "x"),
            uid: "u".into(),
            resource_version: Some("7".into()),
            finalizers: vec!["theirs".into(), PORT_FINALIZER.into()],
            deleting: true,
            ports: vec![],
            why: String::new(),
        };
        assert_eq!(
            without_finalizer(&odd),
            json!({"metadata": {"uid": "u", "resourceVersion": "7", "finalizers": ["theirs"]}})
        );
    }

    #[test]
    fn what_is_said_of_it_names_what_is_wrong_and_the_fix() {
        let note = note("spec: invalid type");
        assert!(note.contains("(spec: invalid type)") && note.contains("delete it"), "{note}");
    }
}
