//! Demand against pools, in virtual time: how often a pod finds a port, how long it waits, how many ports lie about and how much
//! is asked of Neutron, for the rule of [`kuryr_plan::pool`] with several settings, for pools of a fixed size, and for those of
//! kuryr-kubernetes. The table in docs/pools.md is from here.
//!
//! `cargo run -p kuryr-plan --example pools [LOAD [RULE]]`: only loads and rules whose names begin so.
//!
//! ```text
//!   load ──starts and ends of pods──▶ clock ──▶ a rule (following, original) ──requests──▶ Neutron ──▶ clock
//! ```

mod clock;
mod follow;
mod load;
mod neutron;
mod original;
mod report;
mod trunks;

use clock::{Clock, Event, Millis};
use kuryr_plan::pool::Settings;
use load::Load;
use report::Report;
use std::{error::Error, io::Write, time::Duration};

/// Nodes of the cluster.
pub(crate) const NODES: usize = 50;

/// A way to have ports ready.
pub(crate) trait Rule {
    /// Something happened.
    fn handle(&mut self, event: Event, clock: &mut Clock, report: &mut Report);
    /// Ports that no pod has, with those that are being made.
    fn held(&self) -> usize;
    /// Requests to Neutron so far.
    fn requests(&self) -> usize;
}

fn main() -> Result<(), Box<dyn Error>> {
    let (load, rule) = (std::env::args().nth(1).unwrap_or_default(), std::env::args().nth(2).unwrap_or_default());
    let mut out = std::io::stdout();
    for load in Load::ALL.into_iter().filter(|known| known.name().starts_with(&load)) {
        writeln!(out, "\n{}: {}\n", load.name(), load.about())?;
        writeln!(out, "{}", Report::HEADER)?;
        for (name, mut rule) in rules(load).into_iter().filter(|(name, _)| name.starts_with(&rule)) {
            let report = run(load, rule.as_mut());
            writeln!(out, "{}", report.row(&name))?;
        }
    }
    Ok(())
}

fn run(load: Load, rule: &mut dyn Rule) -> Report {
    let (mut clock, mut report) = (Clock::default(), Report::default());
    let end = load.schedule(&mut clock);
    clock.at(0, Event::Begin);
    while let Some((now, event)) = clock.next() {
        if now > end {
            break;
        }
        report.pass(now, rule.held());
        rule.handle(event, &mut clock, &mut report);
    }
    report.requests = rule.requests();
    report
}

fn rules(load: Load) -> Vec<(String, Box<dyn Rule>)> {
    let follow = |settings: Settings| -> Box<dyn Rule> {
        Box::new(follow::Follow::new(Settings { cooldown: load.cooldown(), ..settings }, load.nested()))
    };
    let mut rules: Vec<(String, Box<dyn Rule>)> = vec![("no pools".into(), follow(follow::none()))];
    // What those of kuryr-kubernetes do with trunks is not simulated.
    for (min, batch, max) in [(5, 10, 0), (1, 3, 0), (5, 10, 20)].into_iter().filter(|_| !load.nested()) {
        let most = if max == 0 { "no max".to_owned() } else { format!("max {max}") };
        let name = format!("original, min {min}, batch {batch}, {most}");
        rules.push((name, Box::new(original::Original::new(min, batch, max))));
    }
    for size in [2, 5] {
        rules.push((format!("fixed at {size}"), follow(follow::fixed(size))));
    }
    let minute = Duration::from_secs(60);
    for (floor, memory, budget) in
        [(0, 60, 500), (1, 60, 500), (2, 2, 500), (2, 10, 500), (2, 60, 500), (2, 60, 200), (5, 60, 500)]
    {
        let name = format!("following, floor {floor}, memory {memory} min, budget {budget}");
        rules.push((name, follow(Settings { floor, memory: minute * memory, budget, ..Settings::default() })));
    }
    rules
}

/// Duration of so many milliseconds.
pub(crate) fn duration(millis: Millis) -> Duration {
    Duration::from_millis(millis)
}
