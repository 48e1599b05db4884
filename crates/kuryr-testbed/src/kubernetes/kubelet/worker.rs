//! The life of one pod on its node.
//!
//! ```text
//! take over ─┬▶ set up (netns, ADD; again after a failure) ─▶ run ─┬▶ ended by itself ─▶ clean up ─▶ wait
//!            └────────────── found alive ──────────────────▶       └▶ deleted or gone ─▶ kill ─▶ clean up ─▶ DELETE
//! ```

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    runtime::events::{Event, EventType},
};
use kuryr_model::chain;
use nix::sys::signal::Signal;
use tokio::{sync::watch, time::Instant};

use super::{
    PodTiming, Shared,
    cni::{self, CniVerb},
    lock, netns,
    process::{self, Process, Program},
    sandbox::{Sandbox, new_container_id},
    status::{self, Container, Report},
};

/// What should become of the pod.
#[derive(Clone)]
pub(crate) enum Desired {
    /// As it says; it is being deleted if it has a deletion timestamp.
    Run(Arc<Pod>),
    /// It is no longer in the API.
    Gone,
    /// The node goes; the pod stays in the API.
    Teardown,
}

impl Desired {
    fn is_ending(&self) -> bool {
        match self {
            Self::Run(pod) => pod.metadata.deletion_timestamp.is_some(),
            Self::Gone | Self::Teardown => true,
        }
    }

    fn is_final(&self) -> bool {
        matches!(self, Self::Gone | Self::Teardown)
    }
}

pub(crate) struct Worker {
    node: Arc<Shared>,
    desired: watch::Receiver<Desired>,
    leftovers: Vec<Sandbox>,
    seen: Instant,
    seen_at: Timestamp,
    sandbox: Option<Sandbox>,
    container: Container,
    restarts: u32,
}

/// What came of running the pod's container.
enum Ran {
    /// The pod is to end.
    Ending,
    /// Its container has ended for good, with this code.
    Finished(i32),
}

impl Worker {
    pub(crate) fn new(
        node: Arc<Shared>,
        desired: watch::Receiver<Desired>,
        leftovers: Vec<Sandbox>,
        seen: Instant,
    ) -> Self {
        let container = Container::Waiting { reason: "ContainerCreating", message: String::new() };
        Self { node, desired, leftovers, seen, seen_at: Timestamp::now(), sandbox: None, container, restarts: 0 }
    }

    /// Lives until the pod is gone from the API.
    pub(crate) async fn run(mut self) {
        let over = self.pod().is_some_and(|pod| matches!(phase(&pod), "Succeeded" | "Failed"));
        self.take_over(over).await;
        if !over && (self.sandbox.is_some() || self.set_up().await) {
            match self.run_container().await {
                Ran::Ending => {}
                Ran::Finished(code) => {
                    self.report(status::final_phase(code)).await;
                    self.clean_up().await;
                }
            }
        }
        self.wait_ending().await;
        self.kill().await;
        self.clean_up().await;
        self.say_farewell().await;
        // The pod may be held by a finalizer; its worker stays, so that no event starts another.
        let _ = self.desired.wait_for(Desired::is_final).await;
    }

    fn pod(&self) -> Option<Arc<Pod>> {
        match &*self.desired.borrow() {
            Desired::Run(pod) => Some(pod.clone()),
            _ => None,
        }
    }

    async fn wait_ending(&self) {
        // An error means that the kubelet is gone, which ends this task anyway.
        let _ = self.desired.clone().wait_for(Desired::is_ending).await;
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.node.config.client.clone(), &pod.namespace().unwrap_or_default())
    }

    fn remember(&self, sandbox: &Sandbox) {
        if let Err(error) = self.node.records.save(sandbox) {
            tracing::warn!(%error, "cannot remember a sandbox");
        }
        lock(&self.node.sandboxes).insert(sandbox.uid.clone(), sandbox.clone());
    }

    /// Keeps a sandbox that is still good; what else an earlier kubelet left is cleaned up.
    async fn take_over(&mut self, over: bool) {
        for sandbox in std::mem::take(&mut self.leftovers) {
            let network = sandbox.netns.as_deref().is_none_or(|path| netns::exists(path) && sandbox.result.is_some());
            let process = sandbox.pid.is_none() || process::find(&sandbox.container_id).is_some();
            let wanted = !over && self.sandbox.is_none() && network && process;
            if wanted {
                self.remember(&sandbox);
                self.sandbox = Some(sandbox);
            } else {
                let kept = self.sandbox.replace(sandbox);
                self.kill().await;
                self.clean_up().await;
                self.sandbox = kept;
            }
        }
    }

    /// Makes a sandbox, again and again until one works; false if the pod is to end.
    async fn set_up(&mut self) -> bool {
        let (mut pause, longest) = self.node.config.backoff;
        let mut attempts = 0;
        while let Some(pod) = self.pod().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            attempts += 1;
            let Err(message) = self.make_sandbox(&pod, attempts).await else { return true };
            if self.desired.borrow().is_ending() {
                return false;
            }
            self.publish(&pod, "FailedCreatePodSandBox", &format!("Failed to create pod sandbox: {message}"));
            self.clean_up().await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wait_ending() => return false,
            }
            pause = (pause * 2).min(longest);
        }
        false
    }

    async fn make_sandbox(&mut self, pod: &Pod, attempts: u32) -> Result<(), String> {
        let container_id = new_container_id();
        let host_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        let netns = (!host_network).then(|| self.node.config.netns_dir.join(format!("cni-{}", &container_id[..32])));
        let grace = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        let sandbox = self.sandbox.insert(Sandbox {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            container_id,
            netns,
            result: None,
            pid: None,
            grace: grace.try_into().unwrap_or_default(),
        });
        let mut sandbox = sandbox.clone();
        self.remember(&sandbox);
        let begun = Instant::now();
        let mut add = Duration::ZERO;
        if let Some(attachment) = sandbox.attachment() {
            netns::create(&attachment.netns, self.node.tasks.token()).await.map_err(|error| chain(&error))?;
            let before_add = Instant::now();
            // A pod that is deleted meanwhile does not wait for ADD: the plugin is killed, as by containerd.
            let result = tokio::select! {
                result = self.node.cni.call(CniVerb::Add, Some(&attachment), None, &[]) => result,
                () = self.wait_ending() => return Err("the pod is being deleted".to_owned()),
            };
            sandbox.result = Some(result.map_err(|error| chain(&error))?);
            add = before_add.elapsed();
        }
        self.remember(&sandbox);
        self.sandbox = Some(sandbox);
        lock(&self.node.timings).push(PodTiming {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            seen: self.seen_at,
            netns: begun.elapsed().saturating_sub(add),
            cni_add: add,
            running: Duration::ZERO,
            total: self.seen.elapsed(),
            attempts,
        });
        Ok(())
    }

    /// Notes that the pod has been reported Running.
    fn note_running(&self, pod: &Pod) {
        let mut timings = lock(&self.node.timings);
        let own = |timing: &&mut PodTiming| {
            timing.seen == self.seen_at
                && timing.name == pod.name_any()
                && Some(&timing.namespace) == pod.namespace().as_ref()
        };
        if let Some(timing) = timings.iter_mut().rev().find(own).filter(|timing| timing.running.is_zero()) {
            let total = self.seen.elapsed();
            timing.running = total.saturating_sub(timing.total);
            timing.total = total;
        }
    }

    /// Runs the container until it ends for good or the pod is to end.
    async fn run_container(&mut self) -> Ran {
        let (mut pause, longest) = self.node.config.backoff;
        loop {
            let Some(pod) = self.pod() else { return Ran::Ending };
            let since = Timestamp::now();
            let started = self.start_container(&pod).await;
            let code = match started {
                Ok(process) => {
                    self.container = Container::Running { since };
                    self.report("Running").await;
                    self.note_running(&pod);
                    let Some(process) = process else {
                        self.wait_ending().await;
                        return Ran::Ending;
                    };
                    let code = tokio::select! {
                        code = process.ended() => code,
                        () = self.wait_ending() => return Ran::Ending,
                    };
                    self.forget_process();
                    self.container = Container::ended(code, since);
                    code
                }
                Err(message) => {
                    let finished = Timestamp::now();
                    self.container = Container::Ended { code: 128, reason: "StartError", started: since, finished };
                    self.publish(&pod, "Failed", &format!("Error: {message}"));
                    128
                }
            };
            let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
            if policy == "Never" || (policy == "OnFailure" && code == 0) {
                return Ran::Finished(code);
            }
            let message =
                format!("back-off {} ms restarting the container, which ended with {code}", pause.as_millis());
            self.container = Container::Waiting { reason: "CrashLoopBackOff", message };
            self.report("Running").await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wait_ending() => return Ran::Ending,
            }
            self.restarts += 1;
            pause = (pause * 2).min(longest);
        }
    }

    /// Starts the container, or finds it running; `None` if the pod has no command and only keeps its network.
    async fn start_container(&mut self, pod: &Pod) -> Result<Option<Process>, String> {
        let Some(mut sandbox) = self.sandbox.clone() else { return Ok(None) };
        if let Some(process) = process::find(&sandbox.container_id) {
            return Ok(Some(process));
        }
        let Some(container) = pod.spec.as_ref().and_then(|spec| spec.containers.first()) else { return Ok(None) };
        let mut argv = container.command.clone().unwrap_or_default();
        if argv.is_empty() {
            return Ok(None);
        }
        argv.extend(container.args.clone().unwrap_or_default());
        let env = container.env.iter().flatten();
        let program = Program {
            argv,
            env: env.filter_map(|variable| Some((variable.name.clone(), variable.value.clone()?))).collect(),
            netns: sandbox.netns.clone(),
            log: self.node.config.log_dir.join(format!("{}_{}.log", sandbox.namespace, sandbox.name)),
        };
        let process = process::start(&sandbox.container_id, program).await.map_err(|error| chain(&error))?;
        sandbox.pid = Some(process.pid);
        self.remember(&sandbox);
        self.sandbox = Some(sandbox);
        Ok(Some(process))
    }

    fn forget_process(&mut self) {
        if let Some(mut sandbox) = self.sandbox.clone() {
            process::forget(&sandbox.container_id);
            sandbox.pid = None;
            self.remember(&sandbox);
            self.sandbox = Some(sandbox);
        }
    }

    /// Ends the container: asked first, forced when the grace period is over.
    async fn kill(&mut self) {
        let Some(sandbox) = self.sandbox.clone() else { return };
        let Some(process) = process::find(&sandbox.container_id) else { return };
        process.signal(Signal::SIGTERM);
        let begun = Instant::now();
        let code = loop {
            let grace = match &*self.desired.borrow_and_update() {
                Desired::Run(pod) => pod.metadata.deletion_grace_period_seconds.and_then(|s| s.try_into().ok()),
                Desired::Gone => None,
                Desired::Teardown => Some(0),
            };
            let deadline = begun + Duration::from_secs(grace.unwrap_or(sandbox.grace));
            tokio::select! {
                code = process.ended() => break code,
                () = tokio::time::sleep_until(deadline) => {
                    process.signal(Signal::SIGKILL);
                    break process.ended().await;
                }
                // A later delete may shorten the grace period.
                changed = self.desired.changed() => if changed.is_err() { return },
            }
        };
        // What the container has forked goes with it.
        process.signal(Signal::SIGKILL);
        self.forget_process();
        let started = match &self.container {
            Container::Running { since } => *since,
            _ => self.seen_at,
        };
        self.container = Container::ended(code, started);
    }

    /// Undoes the sandbox: DEL until it succeeds, then the namespace, then the record.
    async fn clean_up(&mut self) {
        let Some(sandbox) = self.sandbox.take() else { return };
        let (mut pause, longest) = self.node.config.backoff;
        let mut tries = 0;
        while let Some(attachment) = sandbox.attachment() {
            let deleted = self.node.cni.call(CniVerb::Del, Some(&attachment), sandbox.result.as_ref(), &[]).await;
            let Err(error) = deleted else { break };
            let message = chain(&error);
            tracing::debug!(message, pod = sandbox.name, "CNI DEL failed");
            if tries == 0
                && let Some(pod) = self.pod()
            {
                self.publish(
                    &pod,
                    "FailedKillPod",
                    &format!("error killing pod: failed to destroy network: {message}"),
                );
            }
            tries += 1;
            // A node that goes does not wait for a plugin that may have gone before.
            if tries >= 3 && matches!(*self.desired.borrow(), Desired::Teardown) {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
        if let (Some(pid), Some(path)) = (sandbox.pid, &sandbox.netns) {
            process::kill_stray(pid, path);
        }
        if let Some(path) = &sandbox.netns
            && let Err(error) = netns::remove(path)
        {
            tracing::warn!(error = chain(&error), "cannot remove a network namespace");
        }
        if let Err(error) = self.node.records.remove(&sandbox.container_id) {
            tracing::warn!(error = chain(&error), "cannot forget a sandbox");
        }
        let mut sandboxes = lock(&self.node.sandboxes);
        if sandboxes.get(&sandbox.uid).is_some_and(|held| held.container_id == sandbox.container_id) {
            sandboxes.remove(&sandbox.uid);
        }
    }

    /// Reports the end and removes the pod from the API.
    async fn say_farewell(&mut self) {
        let Some(pod) = self.pod() else { return };
        if !matches!(phase(&pod), "Succeeded" | "Failed") {
            let code = match self.container {
                Container::Ended { code, .. } => code,
                _ => 0,
            };
            self.container = Container::ended(code, self.seen_at);
            self.report(status::final_phase(code)).await;
        }
        let preconditions = Preconditions { uid: pod.uid(), resource_version: None };
        let options = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let pods = self.pods(&pod);
        self.persist(|| async { pods.delete(&pod.name_any(), &options).await.map(drop) }).await;
    }

    /// Writes the pod's status.
    async fn report(&mut self, phase: &'static str) {
        let Some(pod) = self.pod() else { return };
        let node_address = self.node.config.address.to_string();
        let sandbox = self.sandbox.as_ref();
        let mut addresses = sandbox.and_then(|sandbox| sandbox.result.as_ref()).map(cni::addresses).unwrap_or_default();
        if sandbox.is_some_and(|sandbox| sandbox.netns.is_none()) {
            addresses.push(node_address.clone());
        }
        if addresses.is_empty() {
            // The sandbox is gone; the addresses it had stay in the status.
            let known = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
            addresses.extend(known.map(|address| address.ip.clone()));
        }
        let patch = status::patch(&Report {
            pod: &pod,
            container_id: sandbox.map_or("", |sandbox| sandbox.container_id.as_str()),
            addresses: &addresses,
            node_address: &node_address,
            container: &self.container,
            restarts: self.restarts,
            phase,
            started: self.seen_at,
        });
        let pods = self.pods(&pod);
        let patch = Patch::Strategic(patch);
        let parameters = PatchParams::default();
        self.persist(|| async { pods.patch_status(&pod.name_any(), &parameters, &patch).await.map(drop) }).await;
    }

    /// Repeats a call until it succeeds, the pod is gone, or the call can never succeed.
    async fn persist<F: Future<Output = Result<(), kube::Error>>>(&self, call: impl Fn() -> F) {
        let (mut pause, longest) = self.node.config.backoff;
        while let Err(error) = call().await {
            if let kube::Error::Api(answer) = &error
                && (400..500).contains(&answer.code)
                && answer.code != 429
            {
                tracing::debug!(%error, "the API server refuses");
                return;
            }
            let mut desired = self.desired.clone();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = desired.wait_for(Desired::is_final) => return,
            }
            pause = (pause * 2).min(longest);
        }
    }

    /// Publishes a warning on the pod, in the background.
    fn publish(&self, pod: &Pod, reason: &str, note: &str) {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note.chars().take(1000).collect()),
            action: "Syncing".to_owned(),
            secondary: None,
        };
        let reference = pod.object_ref(&());
        let recorder = self.node.recorder.clone();
        self.node.tasks.spawn(async move {
            if let Err(error) = recorder.publish(&event, &reference).await {
                tracing::debug!(%error, "cannot publish an event");
            }
        });
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}
