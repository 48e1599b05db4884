//! Runs the clauses as a test suite.

use super::{ALL, Beside, Clause, Site};
use crate::cloud::{Cloud as EmbeddedCloud, Config, HostKind};
use anyhow::Context;
use kuryr_openstack::{CloudConfig, Sources};
use libtest_mimic::{Failed, Trial};
use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, runtime::Runtime, time::timeout};

/// How long a clause may take: real clouds are slow.
const LONGEST: Duration = Duration::from_secs(180);

/// Which cloud is held to the contract.
#[derive(Clone, Debug)]
pub enum Place {
    /// A fresh embedded one for each clause, where ports are bound in this way.
    Embedded(HostKind),
    /// A real one.
    Real(RealArgs),
}

/// A real cloud, from the command line.
#[derive(clap::Args, Clone, Debug)]
pub struct RealArgs {
    /// The clouds.yaml with a real cloud; without it the embedded one is tried
    #[arg(long, value_name = "FILE")]
    pub clouds_file: Option<PathBuf>,
    /// The cloud in it; its user must be an administrator
    #[arg(long, value_name = "NAME", default_value = "kuryr")]
    pub cloud: String,
}

/// How many clauses are tried on a real cloud at a time: it waits for its database and its network more than it computes.
pub const AT_A_TIME: usize = 4;

/// The clauses as tests for libtest-mimic; those that suffer no other come last.
#[must_use]
pub fn trials(place: &Place) -> Vec<Trial> {
    let cloud = Arc::new(RwLock::new(()));
    let trial = |clause: &Clause| {
        let (clause, place, cloud) = (*clause, place.clone(), Arc::clone(&cloud));
        let name = match &place {
            Place::Embedded(kind) => format!("{}::{}", format!("{kind:?}").to_lowercase(), clause.name),
            Place::Real(_) => clause.name.to_owned(),
        };
        Trial::test(name, move || {
            // A lock that somebody panicked under is as good as any.
            let (_shared, _alone) = match (&place, clause.beside) {
                (Place::Embedded(_), _) => (None, None),
                (Place::Real(_), Beside::Others) => (Some(cloud.read().unwrap_or_else(PoisonError::into_inner)), None),
                (Place::Real(_), Beside::Nobody) => (None, Some(cloud.write().unwrap_or_else(PoisonError::into_inner))),
            };
            let runtime = Runtime::new().map_err(|error| Failed::from(error.to_string()))?;
            let begun = Instant::now();
            let held = runtime.block_on(async { timeout(LONGEST, hold(&clause, &place)).await });
            tracing::info!(clause = clause.name, took = ?begun.elapsed(), "tried");
            match held {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(format!("{error:#}").into()),
                Err(_) => Err(format!("not at its end after {LONGEST:?}").into()),
            }
        })
    };
    let mut clauses: Vec<&Clause> = ALL.iter().collect();
    clauses.sort_by_key(|clause| clause.beside == Beside::Nobody);
    clauses.into_iter().map(trial).collect()
}

async fn hold(clause: &Clause, place: &Place) -> anyhow::Result<()> {
    match place {
        Place::Embedded(kind) => {
            let mut config = Config::default();
            // Long enough for a clause to see that a load balancer is pending.
            config.load_balancing.provisioning.create = Duration::from_millis(600);
            let cloud = EmbeddedCloud::new(config);
            cloud.add_host("host-1", *kind);
            let server = cloud.serve(TcpListener::bind("127.0.0.1:0").await?)?;
            let settings = cloud.config();
            let (user, password, project) = (&settings.user, &settings.password, &settings.projects[1]);
            try_at(clause, CloudConfig::password(&server.auth_url(), user, password, project, "Default")).await
        }
        Place::Real(RealArgs { clouds_file, cloud }) => {
            let sources =
                Sources { cloud: Some(cloud.clone()), clouds_file: clouds_file.clone(), ..Sources::default() };
            try_at(clause, CloudConfig::load(&sources)?).await
        }
    }
}

async fn try_at(clause: &Clause, config: CloudConfig) -> anyhow::Result<()> {
    let site = Site::new(config).await?;
    let held = (clause.holds)(&site).await;
    let clean = site.clean().await.context("afterwards");
    held.and(clean)
}
