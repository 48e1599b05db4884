//! `kuryr can-reach`: may one reach another, and who decides it?
//!
//! ```text
//!  files ─────────┐                          ┌─▶ reach, open ─┐
//!                 ├─▶ Objects ─▶ Cluster ────┤                ├─▶ Answer ─▶ print, exit code
//!  API server ────┘                          └─▶ Neutron: now ┘
//! ```
//!
//! The answer is that of the policies. Where a running cloud does something else at this moment, that is said beside it.

mod answer;
mod ends;
mod files;
mod live;
mod neutron;
mod objects;
mod print;
#[cfg(test)]
mod tests;

pub(crate) use live::objects;
pub(crate) use objects::Cluster;
#[cfg(test)]
pub(crate) use objects::{Objects, take};

use crate::output::Output;
use answer::Answer;
use clap::Args;
use ends::{End, To};
use kube::Client;
use kuryr_openstack::Cloud;
use std::{io::Write, path::PathBuf};

/// Say whether policies let one reach another, and which decide it; exit code 0 for yes, 1 for no, 2 if that cannot be told
#[derive(Args, Clone, Debug)]
pub(crate) struct CanReachArgs {
    /// Who connects: NAMESPACE/POD, node/NAME or an address
    #[arg(value_parser = ends::from)]
    from: End,
    /// Who is reached, and at what: NAMESPACE/POD, svc/NAMESPACE/NAME, node/NAME or an address, with the number or name
    /// of a port, and a protocol (tcp unless said); without a port: at which ones
    #[arg(value_name = "TO[:PORT][/PROTOCOL]")]
    to: To,
    /// Ask no cluster: read objects from YAML or JSON files or folders, - for the standard input; comes last
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) from_files: Vec<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Answers from files alone. True: yes.
pub(crate) fn from_files(args: &CanReachArgs, out: &mut dyn Write) -> anyhow::Result<bool> {
    let cluster = files::read(&args.from_files)?.cluster();
    let question = answer::question(&cluster, &args.from, &args.to)?;
    let verdict = answer::verdict(&cluster, &question)?;
    print(args, &answer::answer(&cluster, &question, verdict.as_ref(), &[])?, out)
}

/// Answers from a running cluster, and asks Neutron whether it does that. True: yes, and Neutron does.
pub(crate) async fn live(
    args: &CanReachArgs,
    client: &Client,
    cloud: anyhow::Result<Cloud>,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let mut cluster = live::objects(client).await?.cluster();
    cluster.unapplied = live::unapplied(client, &cluster).await?;
    let question = answer::question(&cluster, &args.from, &args.to)?;
    let verdict = answer::verdict(&cluster, &question)?;
    let asked = match (&verdict, cloud) {
        (None, _) => Ok(Vec::new()),
        (Some(verdict), Ok(cloud)) => live::now(&cloud, &cluster, &verdict.ways).await,
        (Some(_), Err(error)) => Err(error),
    };
    let (now, unknown) = match asked {
        Ok(now) => (now, None),
        Err(error) => (Vec::new(), Some(format!("Neutron was not asked whether it does so now: {error:#}"))),
    };
    let mut answer = answer::answer(&cluster, &question, verdict.as_ref(), &now)?;
    answer.notes.extend(unknown);
    print(args, &answer, out)
}

fn print(args: &CanReachArgs, answer: &Answer, out: &mut dyn Write) -> anyhow::Result<bool> {
    args.output.print(answer, print::text, out)?;
    let open = if answer.port_number.is_some() { answer.answer == "yes" } else { !answer.open.is_empty() };
    Ok(open && answer.not_yet.is_empty())
}
