//! Which of several controllers is the active one, by a Lease.
//!
//! The rules are those of client-go's leader election: whoever writes its name into the Lease leads, and renews it; a
//! Lease that nobody renews for its duration may be taken. Times of other machines are never compared with our clock: a
//! standby measures from the moment at which *it saw* the Lease change. The leader stops well before a standby may
//! take over, so at no moment do two lead. Every write carries the resource version that was read, so of two
//! that reach for the Lease one fails.

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use std::{future::Future, time::Duration};
use tokio::time::{Instant, timeout};

/// How the Lease is kept.
#[derive(Clone, Debug)]
pub struct ElectionConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who we are; must differ between two controllers, and between two runs of one: the Lease of a run that was killed is
    /// waited for, because what it asked of the cloud last may still be under way.
    pub identity: String,
    /// A Lease that was not renewed for this long may be taken by another.
    pub lease_duration: Duration,
    /// A leader that could not renew for this long stops leading; shorter than `lease_duration`.
    pub renew_deadline: Duration,
    /// Time between two renewals, and between two looks of a standby.
    pub retry_period: Duration,
}

/// The Lease cannot be kept or got.
#[derive(Debug, thiserror::Error)]
pub enum ElectionError {
    /// Another controller may lead now: this one must stop.
    #[error("the Lease {0} was not renewed in time, another controller may lead now")]
    Lost(String),
    /// The API server refuses our access to the Lease.
    #[error("Lease {lease}: the API server refuses access; see the Role in deploy/")]
    Forbidden {
        /// The Lease.
        lease: String,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
}

/// What to do about a Lease that was just read.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is ours or free: write our name.
    Take,
    /// Another one holds it: look again.
    Wait,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// The Lease is ours.
    Ours,
    /// Another one holds it.
    Theirs,
    /// Somebody else wrote it between our look and our write: who holds it is to be seen.
    Met,
}

/// What a candidate remembers of the Lease between two looks.
struct Observed {
    holder: String,
    renewed: Option<MicroTime>,
    at: Instant,
}

/// One candidate.
pub(crate) struct Election {
    api: Api<Lease>,
    config: ElectionConfig,
    observed: Option<Observed>,
    /// Since when the Lease is ours at the latest: from before it was asked for. A standby may have seen it then, whenever the answer came.
    renewed: Instant,
}

impl Election {
    pub(crate) fn new(client: Client, config: ElectionConfig) -> Self {
        Self { api: Api::namespaced(client, &config.namespace), config, observed: None, renewed: Instant::now() }
    }

    /// Waits until we lead.
    pub(crate) async fn acquire(&mut self) -> Result<(), ElectionError> {
        loop {
            let begun = Instant::now();
            match timeout(self.config.renew_deadline, self.attempt()).await {
                Ok(Ok(Attempt::Ours)) => {
                    self.renewed = begun;
                    return Ok(());
                }
                Ok(Ok(Attempt::Theirs | Attempt::Met)) => {}
                Ok(Err(error)) if is_forbidden(&error) => {
                    return Err(ElectionError::Forbidden { lease: self.lease(), source: Box::new(error) });
                }
                Ok(Err(error)) => tracing::warn!(lease = self.lease(), error = %error, "cannot look at the lease"),
                Err(_) => tracing::warn!(lease = self.lease(), "no answer about the lease"),
            }
            tokio::time::sleep(self.config.retry_period).await;
        }
    }

    /// Keeps the Lease until `until` is ready, then gives it back; or until it cannot be kept.
    pub(crate) async fn hold<T>(&mut self, until: impl Future<Output = T>) -> Result<T, ElectionError> {
        tokio::pin!(until);
        loop {
            tokio::select! {
                value = &mut until => {
                    self.release().await;
                    return Ok(value);
                }
                () = tokio::time::sleep(self.config.retry_period) => {}
            }
            let left = self.config.renew_deadline.saturating_sub(self.renewed.elapsed());
            let begun = Instant::now();
            match timeout(left, self.attempt()).await {
                Ok(Ok(Attempt::Ours)) => self.renewed = begun,
                Ok(Ok(Attempt::Theirs)) => return Err(ElectionError::Lost(self.lease())),
                // A person, or a write of ours whose answer was lost. As long as no deadline has passed, it is ours.
                Ok(Ok(Attempt::Met)) => {
                    tracing::debug!(lease = self.lease(), "the lease was written by somebody else, too");
                }
                Ok(Err(error)) => tracing::warn!(lease = self.lease(), error = %error, "cannot renew the lease"),
                Err(_) => {}
            }
            if self.renewed.elapsed() >= self.config.renew_deadline {
                return Err(ElectionError::Lost(self.lease()));
            }
        }
    }

    fn lease(&self) -> String {
        format!("{}/{}", self.config.namespace, self.config.name)
    }

    /// Reads the Lease and takes or renews it if we may.
    async fn attempt(&mut self) -> Result<Attempt, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.config.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.config.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.claim(None)),
            };
            return written(self.api.create(&PostParams::default(), &lease).await);
        };
        if self.judge(lease.spec.as_ref(), Instant::now()) == Verdict::Wait {
            return Ok(Attempt::Theirs);
        }
        lease.spec = Some(self.claim(lease.spec.as_ref()));
        written(self.api.replace(&self.config.name, &PostParams::default(), &lease).await)
    }

    /// Whether a Lease with this content may be taken at `now`.
    fn judge(&mut self, spec: Option<&LeaseSpec>, now: Instant) -> Verdict {
        let holder = spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let renewed = spec.and_then(|spec| spec.renew_time.clone());
        if holder.is_empty() || holder == self.config.identity {
            return Verdict::Take;
        }
        if self.observed.as_ref().is_none_or(|seen| seen.holder != holder || seen.renewed != renewed) {
            self.observed = Some(Observed { holder, renewed, at: now });
        }
        // The holder may have been started with a longer duration than we.
        let theirs = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
        let duration = theirs.map_or(self.config.lease_duration, Duration::from_secs);
        match &self.observed {
            Some(seen) if now.saturating_duration_since(seen.at) >= duration => Verdict::Take,
            _ => Verdict::Wait,
        }
    }

    fn claim(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(jiff::Timestamp::now());
        let ours = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&self.config.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let seconds = self.config.lease_duration.as_secs().max(1);
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
            acquire_time: before.filter(|_| ours).and_then(|spec| spec.acquire_time.clone()).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if ours || before.is_none() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }

    /// Gives the Lease back, so that a standby need not wait for it to expire. Best effort: it expires by itself.
    async fn release(&mut self) {
        let given_back = async {
            let Some(mut lease) = self.api.get_opt(&self.config.name).await? else { return Ok(()) };
            match lease.spec.as_mut() {
                Some(spec) if spec.holder_identity.as_deref() == Some(&self.config.identity) => {
                    spec.holder_identity = None;
                    self.api.replace(&self.config.name, &PostParams::default(), &lease).await.map(|_| ())
                }
                _ => Ok(()),
            }
        };
        if let Ok(Err(error)) = timeout(self.config.retry_period, given_back).await {
            tracing::warn!(lease = self.lease(), error = %error, "cannot give the lease back");
        }
    }
}

/// A write that met another one's write is no error: the other one was first.
fn written<T>(result: Result<T, kube::Error>) -> Result<Attempt, kube::Error> {
    match result {
        Ok(_) => Ok(Attempt::Ours),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Attempt::Met),
        Err(error) => Err(error),
    }
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Answer, api_server};

    fn config() -> ElectionConfig {
        ElectionConfig {
            namespace: "kube-system".into(),
            name: "kuryr-controller".into(),
            identity: "us".into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }

    fn election() -> Election {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, std::io::Error>(std::io::Error::other("no API server"))
        });
        Election::new(Client::new(service, "default"), config())
    }

    /// The Lease as an API server has it.
    fn lease(holder: &str) -> serde_json::Value {
        let metadata =
            serde_json::json!({"name": "kuryr-controller", "namespace": "kube-system", "resourceVersion": "1"});
        serde_json::json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": held_by(holder, 1),
        })
    }

    /// A candidate whose writes of a Lease that is held by `holder` are answered so, one after the other; then none is answered.
    fn scripted(holder: &'static str, writes: Vec<Answer>) -> Election {
        let writes = parking_lot::Mutex::new(writes.into_iter());
        let (client, _requests) = api_server(move |request| match &*request.method {
            "GET" => Answer::ok(lease(holder)),
            _ => writes.lock().next().unwrap_or_else(|| Answer::ok(lease("us")).after(Duration::from_secs(3600))),
        });
        Election::new(client, config())
    }

    fn held_by(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            renew_time: Some(MicroTime(jiff::Timestamp::from_second(renewed).unwrap())),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_taken_only_after_it_was_seen_unrenewed_for_its_whole_duration() {
        let mut election = election();
        let start = Instant::now();
        // Renewed long ago by the holder's clock, which may be wrong: the standby measures by its own.
        assert_eq!(election.judge(Some(&held_by("them", 1)), start), Verdict::Wait);
        assert_eq!(election.judge(Some(&held_by("them", 1)), start + Duration::from_secs(14)), Verdict::Wait);
        assert_eq!(election.judge(Some(&held_by("them", 2)), start + Duration::from_secs(15)), Verdict::Wait);
        assert_eq!(election.judge(Some(&held_by("them", 2)), start + Duration::from_secs(29)), Verdict::Wait);
        assert_eq!(election.judge(Some(&held_by("them", 2)), start + Duration::from_secs(30)), Verdict::Take);
    }

    #[tokio::test(start_paused = true)]
    async fn a_free_lease_and_our_own_are_taken_at_once() {
        let mut election = election();
        let now = Instant::now();
        assert_eq!(election.judge(None, now), Verdict::Take);
        assert_eq!(election.judge(Some(&held_by("", 1)), now), Verdict::Take);
        assert_eq!(election.judge(Some(&held_by("us", 1)), now), Verdict::Take);
    }

    #[tokio::test(start_paused = true)]
    async fn transitions_count_changes_of_the_holder_only() {
        let election = election();
        assert_eq!(election.claim(None).lease_transitions, Some(0));
        let mut spec = held_by("them", 1);
        spec.lease_transitions = Some(4);
        let ours = election.claim(Some(&spec));
        assert_eq!(ours.lease_transitions, Some(5));
        assert_eq!(election.claim(Some(&ours)).lease_transitions, Some(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_cannot_renew_stops_before_another_may_take_over() {
        let mut election = election();
        let start = Instant::now();
        let result = election.hold(std::future::pending::<()>()).await;
        assert!(matches!(result, Err(ElectionError::Lost(_))));
        assert!(start.elapsed() < Duration::from_secs(15), "stopped only after {:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_whose_write_met_another_one_looks_again_and_goes_on_leading() {
        let met = || Answer::error(409, "Conflict");
        let ours = || Answer::ok(lease("us"));
        let mut election = scripted("us", vec![ours(), met(), ours(), met(), ours()]);
        let start = Instant::now();
        election.acquire().await.unwrap();
        let held = election.hold(tokio::time::sleep(Duration::from_secs(9))).await;
        assert!(held.is_ok(), "{held:?} after {:?}", start.elapsed());
        // But not if it goes on meeting others.
        let mut election = scripted("us", (0..20).map(|at| if at == 0 { ours() } else { met() }).collect());
        let start = Instant::now();
        election.acquire().await.unwrap();
        assert!(matches!(election.hold(std::future::pending::<()>()).await, Err(ElectionError::Lost(_))));
        assert!(start.elapsed() <= Duration::from_secs(12), "stopped only after {:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_finds_another_ones_name_stops_at_once() {
        let mut election = scripted("them", vec![]);
        let start = Instant::now();
        assert!(matches!(election.hold(std::future::pending::<()>()).await, Err(ElectionError::Lost(_))));
        assert_eq!(start.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_counts_from_before_it_was_asked_for_however_late_the_answer() {
        let mut election = scripted("us", vec![Answer::ok(lease("us")).after(Duration::from_secs(9))]);
        let start = Instant::now();
        election.acquire().await.unwrap();
        assert_eq!(start.elapsed(), Duration::from_secs(9));
        assert!(matches!(election.hold(std::future::pending::<()>()).await, Err(ElectionError::Lost(_))));
        assert!(start.elapsed() < Duration::from_secs(15), "stopped only after {:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_run_of_ours_is_another_one() {
        let mut election = scripted("us-before", vec![Answer::ok(lease("us"))]);
        let start = Instant::now();
        election.acquire().await.unwrap();
        assert!(start.elapsed() >= Duration::from_secs(15), "taken after {:?}", start.elapsed());
    }
}
