//! What a cluster asks for.

use crate::{
    NODES,
    clock::{Chance, Clock, Event, Millis},
};
use std::time::Duration;

const SECOND: Millis = 1000;
const MINUTE: Millis = 60 * SECOND;
const HOUR: Millis = 60 * MINUTE;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    Churn,
    Bursts,
    Jobs,
    Drain,
    Diurnal,
    Moves,
    Short,
}

/// Writes the life of pods into the clock.
struct Writer<'a> {
    clock: &'a mut Clock,
    next: u32,
}

impl Writer<'_> {
    fn pod(&mut self, node: usize, from: Millis, to: Millis) {
        let pod = self.next;
        self.next += 1;
        self.clock.at(from, Event::Start { pod, node });
        self.clock.at(to, Event::End { pod });
    }
}

impl Load {
    pub(crate) const ALL: [Self; 7] =
        [Self::Churn, Self::Bursts, Self::Jobs, Self::Drain, Self::Diurnal, Self::Moves, Self::Short];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Churn => "churn",
            Self::Bursts => "bursts",
            Self::Jobs => "jobs",
            Self::Drain => "drain",
            Self::Diurnal => "diurnal",
            Self::Moves => "moves",
            Self::Short => "short",
        }
    }

    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Churn => "5 pods a second for an hour, each lives 2 minutes",
            Self::Bursts => {
                "4 hours; a Deployment of 200 pods about every 15 minutes, which lives for 10; every 20 minutes one of 48 pods is rolled, 12 at a time"
            }
            Self::Jobs => "4 hours; 40 jobs at the beginning of every fifth minute, each runs for 45 seconds",
            Self::Drain => {
                "3 hours; every 6 minutes a node with 30 pods is drained, which start elsewhere; it is back after 4 minutes"
            }
            Self::Diurnal => {
                "24 hours; from a pod in 50 seconds at night to one in each second at noon, each lives 10 minutes"
            }
            Self::Moves => {
                "an hour, nodes are virtual machines; every 4 minutes 50 pods start at once on the next one, and live for 3"
            }
            Self::Short => {
                "3 minutes, nodes are virtual machines; on one of them 5 pods a second, each lives 5 seconds; cooldown 2 seconds"
            }
        }
    }

    /// Nodes are virtual machines.
    pub(crate) fn nested(self) -> bool {
        matches!(self, Self::Moves | Self::Short)
    }

    /// How long nobody gets a port that was given back.
    pub(crate) fn cooldown(self) -> Duration {
        Duration::from_secs(if matches!(self, Self::Short) { 2 } else { 30 })
    }

    /// Writes all events; when the load ends.
    pub(crate) fn schedule(self, clock: &mut Clock) -> Millis {
        let mut chance = Chance(42);
        let mut writer = Writer { clock, next: 0 };
        match self {
            Self::Churn => churn(&mut writer, &mut chance),
            Self::Bursts => bursts(&mut writer, &mut chance),
            Self::Jobs => jobs(&mut writer, &mut chance),
            Self::Drain => drain(&mut writer, &mut chance),
            Self::Diurnal => diurnal(&mut writer, &mut chance),
            Self::Moves => moves(&mut writer),
            Self::Short => short(&mut writer),
        }
    }
}

fn churn(writer: &mut Writer<'_>, chance: &mut Chance) -> Millis {
    let mut now = MINUTE;
    while now < HOUR {
        writer.pod(chance.node(), now, now + chance.around(120_000.0));
        now += chance.around(200.0);
    }
    HOUR
}

fn bursts(writer: &mut Writer<'_>, chance: &mut Chance) -> Millis {
    let mut now = MINUTE;
    while now < 4 * HOUR {
        for _ in 0..200 {
            let start = now + chance.below(2 * SECOND);
            writer.pod(chance.node(), start, start + 10 * MINUTE + chance.below(2 * SECOND));
        }
        now += chance.around(900_000.0);
    }
    // A rolling update: twelve new ones start, when they run twelve old ones end.
    let mut roll = 5 * MINUTE;
    while roll < 4 * HOUR {
        for group in 0..4 {
            let start = roll + group * 8 * SECOND;
            for _ in 0..12 {
                writer.pod(chance.node(), start + chance.below(300), start + 20 * MINUTE + 6 * SECOND);
            }
        }
        roll += 20 * MINUTE;
    }
    4 * HOUR
}

fn jobs(writer: &mut Writer<'_>, chance: &mut Chance) -> Millis {
    for round in 1..48 {
        for _ in 0..40 {
            let start = round * 5 * MINUTE + chance.below(1500);
            writer.pod(chance.node(), start, start + 45 * SECOND + chance.below(SECOND));
        }
    }
    4 * HOUR
}

/// Each node holds 30 pods that the loads before have left: only those that move are told of.
fn drain(writer: &mut Writer<'_>, chance: &mut Chance) -> Millis {
    let end = 3 * HOUR;
    let mut now = 2 * MINUTE;
    let mut drained = 0;
    while now < end {
        let node = drained % NODES;
        writer.clock.at(now, Event::Cordon { node, on: true });
        for _ in 0..30 {
            let elsewhere = (node + 1 + chance.node() % (NODES - 1)) % NODES;
            let start = now + chance.below(8 * SECOND);
            writer.pod(elsewhere, start, start + 40 * MINUTE + chance.below(40 * MINUTE));
        }
        writer.clock.at(now + 4 * MINUTE, Event::Cordon { node, on: false });
        drained += 1;
        now += 6 * MINUTE;
    }
    end
}

fn moves(writer: &mut Writer<'_>) -> Millis {
    for node in 0..15 {
        let start = MINUTE + 4 * MINUTE * node as Millis;
        for _ in 0..50 {
            writer.pod(node, start, start + 3 * MINUTE);
        }
    }
    HOUR
}

fn short(writer: &mut Writer<'_>) -> Millis {
    let end = 3 * MINUTE;
    let mut now = MINUTE;
    while now < end {
        writer.pod(0, now, now + 5 * SECOND);
        now += 200;
    }
    end
}

#[expect(clippy::cast_precision_loss)]
fn diurnal(writer: &mut Writer<'_>, chance: &mut Chance) -> Millis {
    let day = 24 * HOUR;
    let mut now = 0;
    while now < day {
        let angle = now as f64 / day as f64 * std::f64::consts::TAU;
        let rate = 0.02 + 0.98 * (0.5 - angle.cos() / 2.0);
        writer.pod(chance.node(), now, now + chance.around(600_000.0));
        now += chance.around(1000.0 / rate);
    }
    day
}
