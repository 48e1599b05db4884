//! Nodes that are virtual machines, in the real world: `e2e/machines.sh` boots them, and lets commands be run in them.
//!
//! What is in such a machine cannot be entered from here. So packets are sent by programs that are in every busybox, in a machine
//! as here, by an [`Asker`].

use super::{Ground, Real, World};
use crate::dataplane::probe;
use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kuryr_model::PortId;
use kuryr_node::attachments::Attachment;
use serde::Deserialize;
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    process::Command,
    time::{Instant, timeout},
};

/// How long a command in a machine may take, in seconds: all of it is emulated.
const COMMAND: &str = "30";

/// How long a machine may take from being switched on until its pods are plugged.
const BOOT: Duration = Duration::from_secs(90);

/// How long it may take until a connection is there, in seconds.
const SILENCE: u8 = 2;

/// How long all of a connection may take, in seconds.
const STALLED: u8 = 4;

/// Comes before each answer, and in none.
const NEXT: &str = "@@";

/// A virtual machine that is a node.
#[derive(Clone, Debug, Deserialize)]
pub struct Guest {
    /// Its name, and that of its Node.
    pub name: String,
    /// Its port in Neutron, the parent of its trunk.
    pub port: PortId,
    /// The address of that port.
    pub address: IpAddr,
    /// The file with all that was written to its console.
    console: PathBuf,
}

/// An HTTP server, whose page is one of these names.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// The names of those that may answer.
    pub names: &'a [&'a str],
    /// Its address.
    pub address: IpAddr,
    /// Its TCP port number.
    pub number: u16,
}

/// Somebody who sends packets.
pub enum Asker<'a> {
    /// A network namespace here.
    Here(PathBuf),
    /// A virtual machine itself, or one of its pods by its network namespace.
    Guest(&'a Real, &'a Guest, Option<PathBuf>),
}

impl World {
    /// Starts these virtual machines, if they do not run, and waits until they are ready nodes. They stay when the scenario ends.
    /// Pods of `NAME` are subports of its trunk, those of `NAME=macvlan` and `NAME=ipvlan` share its port.
    ///
    /// # Errors
    /// This is the embedded world, or they do not come up.
    pub async fn guests(&self, names: &[&str]) -> anyhow::Result<Vec<Guest>> {
        let args: Vec<&str> = ["up"].iter().chain(names).copied().collect();
        let printed = self.stack()?.script("machines.sh", &args).await?;
        serde_json::from_str(printed.trim()).with_context(|| format!("machines.sh up prints {printed:?}"))
    }

    fn stack(&self) -> anyhow::Result<&Real> {
        match &self.ground {
            Ground::Real(real) => Ok(real),
            Ground::Embedded(_) => bail!("this needs the real world"),
        }
    }

    /// Runs a shell command in a machine; what it prints.
    ///
    /// # Errors
    /// It fails, takes too long, or there is no such machine.
    pub async fn ask_guest(&self, guest: &Guest, command: &str) -> anyhow::Result<String> {
        self.stack()?.script("machines.sh", &["ask", &guest.name, COMMAND, command]).await
    }

    /// What a machine's daemon remembers.
    ///
    /// # Errors
    /// The machine does not tell.
    pub async fn attachments_of(&self, guest: &Guest) -> anyhow::Result<Vec<Attachment>> {
        let files = self.ask_guest(guest, "find /var/lib/kuryr/attachments -name '*.json' -exec cat {} +").await?;
        let attachments = serde_json::Deserializer::from_str(&files).into_iter();
        attachments.collect::<Result<_, _>>().with_context(|| format!("attachments of {}: {files}", guest.name))
    }

    /// Switches a machine off and on. It forgets what it had written, as one that is made anew of its image.
    ///
    /// # Errors
    /// It does not boot.
    pub async fn reboot(&self, guest: &Guest) -> anyhow::Result<()> {
        self.stack()?.script("machines.sh", &["reboot", &guest.name]).await.map(drop)
    }

    /// Waits until a machine's daemon has plugged a pod. That the pod runs does not tell after a reboot.
    ///
    /// # Errors
    /// It does not, in time.
    pub async fn plugged(&self, guest: &Guest, pod: &Pod) -> anyhow::Result<()> {
        let uid = pod.uid().context("a pod without UID")?;
        let plugged = async {
            loop {
                // Until its daemon has been there, there is nothing to be read.
                let attachments = self.attachments_of(guest).await.unwrap_or_default();
                if attachments.iter().any(|attachment| attachment.pod_uid.as_str() == uid) {
                    return;
                }
                // Nothing tells what happens in there.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let late = || format!("{} has not plugged pod {} within {BOOT:?}", guest.name, pod.name_any());
        timeout(BOOT, plugged).await.with_context(late)
    }

    /// A running pod that sends packets, wherever it is.
    ///
    /// # Errors
    /// The node's daemon does not know the pod.
    pub async fn asker<'a>(&'a self, guests: &'a [Guest], pod: &Pod) -> anyhow::Result<Asker<'a>> {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        let Some(guest) = guests.iter().find(|guest| guest.name == node) else {
            return Ok(Asker::Here(self.netns(pod)?));
        };
        let uid = pod.uid().context("a pod without UID")?;
        let attachments = self.attachments_of(guest).await?;
        let attachment = attachments.into_iter().find(|attachment| attachment.pod_uid.as_str() == uid);
        let attachment = attachment.with_context(|| format!("{node} has no attachment of pod {}", pod.name_any()))?;
        Ok(Asker::Guest(self.stack()?, guest, Some(attachment.netns)))
    }

    /// A machine itself.
    ///
    /// # Errors
    /// This is the embedded world.
    pub fn guest_asker<'a>(&'a self, guest: &'a Guest) -> anyhow::Result<Asker<'a>> {
        Ok(Asker::Guest(self.stack()?, guest, None))
    }
}

impl Asker<'_> {
    /// Runs a shell command, whatever it comes to; what it prints.
    async fn run(&self, command: &str) -> anyhow::Result<String> {
        let within = |netns: &Path| format!("nsenter --net={} sh -c \"{command}\"", netns.display());
        match self {
            Self::Guest(real, guest, netns) => {
                let command = netns.as_deref().map_or_else(|| command.to_owned(), within);
                real.script("machines.sh", &["ask", &guest.name, COMMAND, &format!("{command}; true")]).await
            }
            Self::Here(netns) => {
                let output = Command::new("sh").args(["-c", &within(netns)]).output().await?;
                Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            }
        }
    }

    /// Asks HTTP servers for their pages, each once: its answer, or nothing. All at one go, for to run a command in a machine takes
    /// longer than the answers do.
    async fn pages(&self, servers: &[Server<'_>]) -> anyhow::Result<Vec<String>> {
        let request = r"printf 'GET / HTTP/1.0\r\n\r\n'";
        let questions = servers.iter().map(|Server { address, number, .. }| {
            format!(
                "echo {NEXT}; {request} | busybox timeout {STALLED} busybox nc -w {SILENCE} {address} {number} 2>&1; echo"
            )
        });
        let answers = self.run(&questions.collect::<Vec<_>>().join("; ")).await?;
        let pages: Vec<String> = answers.split(NEXT).skip(1).map(|page| page.trim().to_owned()).collect();
        ensure!(pages.len() == servers.len(), "{} questions were asked, and answered {answers:?}", servers.len());
        Ok(pages)
    }

    /// Waits until each of these servers has answered once, over TCP.
    ///
    /// # Errors
    /// One does not, or another one does, within that time.
    pub async fn finds(&self, servers: &[Server<'_>], within: Duration) -> anyhow::Result<()> {
        let since = Instant::now();
        let mut left = servers.to_vec();
        loop {
            let pages = self.pages(&left).await?;
            let mut pages = pages.iter();
            left.retain(|server| pages.next().is_none_or(|page| !server.names.iter().any(|name| page.ends_with(name))));
            if left.is_empty() {
                return Ok(());
            }
            ensure!(since.elapsed() < within, "not found: {left:?}");
        }
    }

    /// Waits until nothing comes back from an address, over TCP.
    ///
    /// # Errors
    /// It still answers after that time, or refuses.
    pub async fn hears_nothing(&self, address: IpAddr, number: u16, within: Duration) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            let server = Server { names: &[], address, number };
            let page = self.pages(&[server]).await?.concat();
            // So nc ends where there is no connection; the limit around it is longer, and is for one without an answer.
            if page.is_empty() || page.contains("timed out") || page.contains("No route to host") {
                return Ok(());
            }
            ensure!(since.elapsed() < within, "{address}:{number} answers {page:?}");
        }
    }

    /// Waits until an address answers to ping.
    ///
    /// # Errors
    /// It does not, within that time.
    pub async fn pings(&self, address: IpAddr, within: Duration) -> anyhow::Result<()> {
        if let Self::Here(netns) = self {
            return Ok(probe::ping(netns, address, within).await.map(drop)?);
        }
        let seconds = within.as_secs();
        let answer = timeout(within * 2, self.run(&format!("ping -c 1 -w {seconds} -W {SILENCE} {address}"))).await??;
        ensure!(answer.contains(" 1 packets received"), "ping to {address}: {answer}");
        Ok(())
    }
}

/// What was written to the consoles of machines last, for whoever has to find out why a scenario failed.
#[must_use]
pub fn consoles(guests: &[Guest]) -> String {
    let tails = guests
        .iter()
        .map(|guest| format!("--- {}\n{}\n", guest.console.display(), super::process::tail(&guest.console)));
    tails.collect()
}
