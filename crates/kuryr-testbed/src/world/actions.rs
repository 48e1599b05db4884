//! What scenarios do to a world besides making pods.

use super::{
    Ground, SERVICE_CIDR_V6, World,
    pods::PATIENCE,
    process::{Process, Program, executable},
};
use crate::kubernetes::Kubelet;
use anyhow::{Context, bail, ensure};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Event, Pod},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    runtime::wait::await_condition,
};
use kuryr_model::{Mark, Purpose, SecurityGroupId, mark::Base, neutron::Subnet};
use kuryr_node::{
    attachments::Attachment,
    netlink::{Socket, link::By},
    netns,
};
use kuryr_openstack::Filter;
use serde_json::json;
use std::{collections::BTreeSet, fs, ops::Range, path::Path, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

/// The pods' addresses of IPv6, where they have some.
const POD_CIDR_V6: &str = "fd00:10:10::/64";

/// The MTU of a link in a namespace, in bytes.
///
/// # Errors
/// There is no such link.
pub fn mtu(namespace: &Path, link: &str) -> anyhow::Result<u32> {
    let found = netns::run(namespace, || Socket::open()?.link(By::Name(link)))??;
    Ok(found.with_context(|| format!("no link {link}"))?.mtu)
}

impl World {
    /// How many pods are many here: fewer in the real world, whose cloud needs a second for three ports.
    #[must_use]
    pub fn crowd(&self) -> usize {
        match self.ground {
            Ground::Embedded(_) => 50,
            Ground::Real(_) => 20,
        }
    }

    /// What a node remembers of a running pod.
    ///
    /// # Errors
    /// It remembers nothing.
    pub fn attachment(&self, pod: &Pod) -> anyhow::Result<Attachment> {
        let uid = pod.uid().context("a pod without UID")?;
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("the pod is on no node")?;
        let found = self.kuryr.attachments(&node)?.into_iter().find(|attachment| attachment.pod_uid.as_str() == uid);
        found.with_context(|| format!("node {node} has no attachment of pod {}", pod.name_any()))
    }

    /// Waits until one of our controllers leads.
    ///
    /// # Errors
    /// None does, in time.
    pub async fn leader_elected(&self) -> anyhow::Result<()> {
        self.renewed_since(Timestamp::UNIX_EPOCH).await
    }

    /// Waits until a controller leads that has renewed its Lease from now on. One that lost it meanwhile has ended, and is
    /// replaced as a Deployment would.
    ///
    /// # Errors
    /// None does, in time.
    pub async fn leads_again(&mut self) -> anyhow::Result<()> {
        let now = Timestamp::now();
        loop {
            let renewed = self.renewed_since(now);
            tokio::select! {
                renewed = renewed => return renewed,
                replaced = self.kuryr.replace_ended_controller() => replaced?,
            }
        }
    }

    /// Waits until the Lease is held by one of our controllers, and was renewed after `since`.
    fn renewed_since(&self, since: Timestamp) -> impl Future<Output = anyhow::Result<()>> + use<> {
        let ours: Vec<String> = self.kuryr.controllers().iter().map(|number| format!("controller-{number}_")).collect();
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-system");
        let leads = move |lease: Option<&Lease>| {
            let Some(spec) = lease.and_then(|lease| lease.spec.as_ref()) else { return false };
            // Its name, and what tells this run of it from others.
            let ours = |holder: &String| ours.iter().any(|name| holder.starts_with(name));
            let held = spec.holder_identity.as_ref().is_some_and(ours);
            held && spec.renew_time.as_ref().is_some_and(|renewed| renewed.0 > since)
        };
        async move {
            let waited = timeout(Duration::from_secs(60), await_condition(leases, "kuryr-controller", leads)).await;
            waited.context("no controller leads")??;
            Ok(())
        }
    }

    /// The subnets that `kuryr setup` made.
    ///
    /// # Errors
    /// Neutron does not tell.
    pub async fn pod_subnets(&self) -> anyhow::Result<Vec<Subnet>> {
        let mark = Mark { cluster: self.cluster.clone(), purpose: Purpose::Base(Base::Pods) };
        Ok(self.cloud.network().subnets().list(&Filter::new().tags(mark.tags())).await?)
    }

    /// Adds an IPv6 subnet to the pod network, as an operator does, and has the controller use it.
    ///
    /// # Errors
    /// Something refuses.
    pub async fn set_up_ipv6(&mut self) -> anyhow::Result<()> {
        let (code, output) = self.kuryr.run(vec!["setup".to_owned(), format!("--pod-cidr={POD_CIDR_V6}")]).await?;
        ensure!(code == Some(0), "kuryr setup ended with {code:?}: {output}");
        self.renew_controllers().await
    }

    /// Adds IPv6 subnets for pods and for Services, as an operator does, and has the controller use them.
    ///
    /// # Errors
    /// Something refuses.
    pub async fn set_up_ipv6_services(&mut self) -> anyhow::Result<()> {
        let cidrs = [format!("--pod-cidr={POD_CIDR_V6}"), format!("--service-cidr={SERVICE_CIDR_V6}")];
        let args = ["setup".to_owned()].into_iter().chain(cidrs).collect();
        let (code, output) = self.kuryr.run(args).await?;
        ensure!(code == Some(0), "kuryr setup ended with {code:?}: {output}");
        self.renew_controllers().await
    }

    /// Takes the subnet of [`World::set_up_ipv6`] away again. No pod may have an address of it any more.
    ///
    /// # Errors
    /// Something refuses.
    pub async fn take_down_ipv6(&mut self) -> anyhow::Result<()> {
        let network = self.cloud.network();
        let mark = Mark { cluster: self.cluster.clone(), purpose: Purpose::Base(Base::Pods) };
        let routers = network.routers().list(&Filter::new().tags(mark.tags())).await?;
        let cidr: IpNet = POD_CIDR_V6.parse()?;
        for subnet in self.pod_subnets().await?.iter().filter(|subnet| subnet.cidr == cidr) {
            for router in &routers {
                network.routers().remove_interface(router.id, subnet.id).await?;
            }
            network.subnets().delete(subnet.id).await?;
        }
        self.renew_controllers().await
    }

    /// Replaces all controllers by one, which looks at the cloud anew.
    pub(super) async fn renew_controllers(&mut self) -> anyhow::Result<()> {
        for controller in self.kuryr.controllers() {
            self.kuryr.stop_controller(controller).await?;
        }
        self.kuryr.start_controller().await?;
        self.leader_elected().await
    }

    /// Adds an IPv6 subnet to the pod network and has the controller use nothing else.
    ///
    /// # Errors
    /// Something refuses.
    pub async fn use_ipv6_only(&mut self) -> anyhow::Result<()> {
        let first = self.pod_subnets().await?.into_iter().next().context("no pod subnet")?;
        let added = self.add_subnet(first.network_id, "pods-v6", POD_CIDR_V6).await?;
        self.use_subnets(&[added.id.to_string()]).await
    }

    /// A node loses power and boots again: what ran is gone, and what was remembered of it, but not its pods.
    ///
    /// # Errors
    /// This is the real world, or something does not start.
    pub async fn reboot_node(&mut self, node: &str) -> anyhow::Result<()> {
        let kubelet = self.inside_mut()?.cut_power(node).await?;
        self.kuryr.kill_daemon(node).await?;
        fs::remove_dir_all(self.kuryr.state_dir(node))?;
        self.kuryr.start_daemon(node).await?;
        let kubelet = Kubelet::start(kubelet).await?;
        self.inside_mut()?.kubelets.insert(node.to_owned(), kubelet);
        Ok(())
    }

    /// Gives the controller these settings of `[openstack]`.
    ///
    /// # Errors
    /// This is the real world, or it does not start with them.
    pub async fn use_openstack_settings(&mut self, lines: &str) -> anyhow::Result<()> {
        self.inside()?.configure_openstack(lines)?;
        self.renew_controllers().await
    }

    /// Gives the controller these settings of its section.
    ///
    /// # Errors
    /// This is the real world, or it does not start with them.
    pub async fn use_controller_settings(&mut self, lines: &str) -> anyhow::Result<()> {
        self.inside()?.configure_controller(lines)?;
        self.renew_controllers().await
    }

    /// The security group that lets everything in.
    ///
    /// # Errors
    /// `kuryr setup` has made none.
    pub async fn open_group(&self) -> anyhow::Result<SecurityGroupId> {
        let mark = Mark { cluster: self.cluster.clone(), purpose: Purpose::Base(Base::IngressOpen) };
        let groups = self.cloud.network().security_groups().list(&Filter::new().tags(mark.tags())).await?;
        Ok(groups.first().context("there is no open group")?.id)
    }

    /// Waits until somebody who describes an object of the scenario's namespace is told the reason.
    ///
    /// # Errors
    /// Nobody is, in time.
    pub async fn told(&self, name: &str, reason: &str) -> anyhow::Result<()> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), self.namespace());
        let deadline = Instant::now() + PATIENCE;
        loop {
            let all = events.list(&ListParams::default()).await?;
            let about = |event: &&Event| event.involved_object.name.as_deref() == Some(name);
            let reasons: BTreeSet<_> = all.iter().filter(about).filter_map(|event| event.reason.clone()).collect();
            if reasons.contains(reason) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "no Event {reason} about {name}, only {reasons:?}");
            // Events come a moment after the condition.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills the controllers so many times while some work goes on, at points that nobody chose: so many milliseconds after the
    /// one that followed leads. The last one lives, for work that takes longer than a controller.
    ///
    /// # Errors
    /// The work fails, or no controller comes to lead.
    pub async fn kill_while(
        &mut self,
        work: JoinHandle<anyhow::Result<()>>,
        times: usize,
        after: Range<u64>,
    ) -> anyhow::Result<()> {
        for _ in 0..times {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(after.clone()))).await;
            if work.is_finished() {
                break;
            }
            self.kuryr.kill_controllers().await?;
            self.kuryr.start_controller().await?;
            self.leader_elected().await?;
        }
        work.await?
    }

    /// Lets anything pass as an object of a custom resource.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn without_schema(&self, definition: &str) -> anyhow::Result<()> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let mut crd = definitions.get(definition).await?;
        for version in &mut crd.spec.versions {
            // The field that daemons select by must keep its type.
            let spec = json!({
                "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"nodeName": {"type": "string"}},
            });
            let open = json!({"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"spec": spec},
            }});
            version.schema = Some(serde_json::from_value(open)?);
        }
        let schema = json!({"spec": {"versions": crd.spec.versions}});
        definitions.patch(definition, &PatchParams::default(), &Patch::Merge(&schema)).await?;
        Ok(())
    }

    /// Runs a controller with this configuration file, and with this clouds.yaml, until it ends; its exit code and output.
    ///
    /// # Errors
    /// It does not end.
    pub async fn controller_with(&self, config: &str, clouds: Option<&str>) -> anyhow::Result<(Option<i32>, String)> {
        let folder = tempfile::tempdir()?;
        let (file, log) = (folder.path().join("kuryr.toml"), folder.path().join("log"));
        std::fs::write(&file, config)?;
        let settings = self.kuryr.settings();
        let also = [("RUST_BACKTRACE", "1"), ("KURYR_LOG", &*settings.log)];
        let also = also.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut env = [settings.cloud_env.clone(), also.to_vec()].concat();
        if let Some(clouds) = clouds {
            let file = folder.path().join("clouds.yaml");
            std::fs::write(&file, clouds)?;
            env.push(("OS_CLIENT_CONFIG_FILE".to_owned(), file.display().to_string()));
        }
        let args = vec![
            "controller".to_owned(),
            "--listen=127.0.0.1:0".to_owned(),
            format!("--config={}", file.display()),
            format!("--kubeconfig={}", settings.controller_kubeconfig.display()),
        ];
        let program = Program { name: "controller", path: &executable("kuryr")?, args, env, netns: None, log: &log };
        let mut process = Process::start(&program)?;
        match timeout(Duration::from_secs(20), process.wait()).await {
            Ok(code) => Ok((code?, std::fs::read_to_string(&log)?)),
            Err(_) => bail!("the controller runs with this configuration: {config}"),
        }
    }

    /// Restarts Open vSwitch's switch.
    ///
    /// # Errors
    /// This is not the real world, or it does not start.
    pub async fn restart_open_vswitch(&self) -> anyhow::Result<()> {
        match &self.ground {
            Ground::Real(real) => real.restart("openstack.sh", "vswitchd").await,
            Ground::Embedded(_) => bail!("there is no Open vSwitch here"),
        }
    }

    /// Restarts the API server.
    ///
    /// # Errors
    /// It does not come back.
    pub async fn restart_api_server(&self) -> anyhow::Result<()> {
        match &self.ground {
            Ground::Real(real) => real.restart("kubernetes.sh", "apiserver").await,
            Ground::Embedded(embedded) => {
                embedded.restart_api_server().await;
                Ok(())
            }
        }
    }
}
