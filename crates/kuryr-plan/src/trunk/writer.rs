//! All that is known and wanted of one trunk.

use super::{Outcome, Plan, Room, Step, Trouble, ids::Ids};
use kuryr_model::{PortId, SegmentationId, neutron::Subport};
use std::collections::{BTreeMap, BTreeSet};

/// The most subports in one request. Neutron takes 0.14 to 0.25 s for each of twenty, and 0.3 to 1 s for one alone; a larger batch is no
/// faster, and all in it wait for its end.
pub const MOST_AT_ONCE: usize = 20;

/// While pods wait, spare ports only fill a request up to so many: whoever comes next waits for its end, and without any spare ones
/// there would never be some for those who come after.
const FILLED_UP: usize = MOST_AT_ONCE / 4;

/// In which order ports come to the trunk: those for which pods wait before spare ones, and else who was asked for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    spare: bool,
    asked: u64,
}

/// The writer of one trunk. It decides; the caller asks Neutron, one [`Step`] after the other.
#[derive(Clone, Debug)]
pub struct Writer {
    /// What the trunk carries, as Neutron last showed it; `None`: that is not known.
    carries: Option<BTreeMap<PortId, u32>>,
    /// The ports that shall be on the trunk; those that have been told with their ids.
    wanted: BTreeMap<PortId, Option<SegmentationId>>,
    /// Those of them that were not told of one yet, and in which order they come.
    turns: BTreeMap<PortId, Turn>,
    /// How many turns were given.
    asked: u64,
    /// Ports that are ours: they may be removed.
    ours: BTreeSet<PortId>,
    /// Ports that Neutron refused alone.
    refused: BTreeSet<PortId>,
    /// Ports that are to be taken off and put back: they do not work where they are.
    anew: BTreeSet<PortId>,
    /// What room it has is to be known though nothing of ours is on it.
    watched: bool,
    /// The id that was given last.
    last: SegmentationId,
    /// How many subports go into the next request.
    batch: usize,
    /// Whether what nobody wants any more goes before what is wanted next: they take turns, or churn would fill the trunk.
    tidy: bool,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// The writer of a trunk of which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self {
            carries: None,
            wanted: BTreeMap::new(),
            turns: BTreeMap::new(),
            asked: 0,
            ours: BTreeSet::new(),
            refused: BTreeSet::new(),
            anew: BTreeSet::new(),
            watched: false,
            last: SegmentationId::MAX,
            batch: MOST_AT_ONCE,
            tidy: false,
        }
    }

    /// `port` shall be on the trunk: with the id that its `KuryrPort` says, or else with any. If Neutron has refused it, it is tried again.
    pub fn want(&mut self, port: PortId, id: Option<SegmentationId>) {
        self.enlist(port, id, false);
    }

    /// The same, with any id, for a port for which nobody waits yet: it comes after those for which somebody does.
    pub fn want_spare(&mut self, port: PortId) {
        self.enlist(port, None, true);
    }

    fn enlist(&mut self, port: PortId, id: Option<SegmentationId>, spare: bool) {
        self.ours.insert(port);
        self.refused.remove(&port);
        let known = self.wanted.entry(port).or_default();
        *known = id.or(*known);
        if known.is_some() {
            self.turns.remove(&port);
            return;
        }
        self.asked += 1;
        let turn = self.turns.entry(port).or_insert(Turn { spare, asked: self.asked });
        turn.spare &= spare;
    }

    /// `port` shall not be on the trunk any more: no pod can use it.
    pub fn unwant(&mut self, port: PortId) {
        self.wanted.remove(&port);
        self.turns.remove(&port);
        self.refused.remove(&port);
        self.anew.remove(&port);
    }

    /// These ports carry our mark: if nobody wants them on the trunk, they are removed.
    pub fn ours(&mut self, ports: impl IntoIterator<Item = PortId>) {
        self.ours.extend(ports);
    }

    /// The id of a port that is on the trunk. It is the port's from now on, so it may be written into a `KuryrPort`.
    pub fn pin(&mut self, port: PortId) -> Option<SegmentationId> {
        let there = self.id_on_trunk(port)?;
        // Somebody may have moved it to an id that another was told, whose own subport they have removed.
        if self.wanted.iter().any(|(other, id)| *other != port && *id == Some(there)) {
            return None;
        }
        let wanted = self.wanted.get_mut(&port)?;
        match wanted {
            Some(id) if *id != there => None,
            _ => {
                *wanted = Some(there);
                self.turns.remove(&port);
                Some(there)
            }
        }
    }

    /// The id that was told of a port, unless the trunk is known not to carry it so. That of a port that is ready for a pod can be told
    /// again even while nobody knows what the trunk carries, because Neutron is away: it was there, and if it is not it is put back so.
    #[must_use]
    pub fn told(&self, port: PortId) -> Option<SegmentationId> {
        let id = (*self.wanted.get(&port)?)?;
        let claimed = self.wanted.iter().any(|(other, told)| *other != port && *told == Some(id));
        let moved = self.carries.as_ref().is_some_and(|carries| carries.get(&port) != Some(&u32::from(id.get())));
        (!claimed && !moved).then_some(id)
    }

    /// Whether `port` is still on the trunk, as far as is known.
    #[must_use]
    pub fn carries(&self, port: PortId) -> bool {
        self.carries.as_ref().is_none_or(|carries| carries.contains_key(&port))
    }

    /// How many more ports could be wanted, once all that is wanted now is there and what is left over is gone; `None` while the
    /// trunk was not read.
    #[must_use]
    pub fn room(&self) -> Option<Room> {
        let carries = self.carries.as_ref()?;
        let mut ids = Ids::after(self.last);
        for id in carries.iter().filter(|(port, _)| !self.ours.contains(port)).filter_map(|(_, id)| vlan(*id)) {
            ids.take(id);
        }
        let others = SegmentationId::COUNT - ids.free();
        self.wanted.values().filter_map(|id| *id).for_each(|id| ids.take(id));
        // One that Neutron refused gets no id until it is wanted again.
        let comes = |port: &PortId| self.id_on_trunk(*port).is_some() || !self.refused.contains(port);
        let coming = self.wanted.iter().filter(|(port, id)| id.is_none() && comes(port)).count();
        Some(Room { free: ids.free().saturating_sub(coming), others })
    }

    /// What room the trunk has is to be known, be it that nothing of ours is on it: it is read when that may have changed.
    pub fn watch(&mut self) {
        self.watched = true;
    }

    /// `port`, which shall be on the trunk, does not work there: it is taken off and put back, with the same id if that was told.
    pub fn again(&mut self, port: PortId) {
        if self.wanted.contains_key(&port) {
            self.anew.insert(port);
        }
    }

    /// Something may have changed at the trunk: it is read before anything else is done.
    pub fn look_again(&mut self) {
        self.carries = None;
    }

    fn id_on_trunk(&self, port: PortId) -> Option<SegmentationId> {
        vlan(*self.carries.as_ref()?.get(&port)?)
    }

    /// What to do next. Pure: the same until [`Writer::tell`] or a change of what is wanted.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let Some(carries) = &self.carries else {
            // Reading what nobody wants anything of would be noise.
            let idle = self.wanted.is_empty() && self.ours.is_empty() && !self.watched;
            return Plan { step: (!idle).then_some(Step::Read), troubles: BTreeMap::new() };
        };
        let holders: BTreeMap<u32, PortId> = carries.iter().map(|(port, id)| (*id, *port)).collect();
        let mut ids = Ids::after(self.last);
        for id in carries.values().filter_map(|id| vlan(*id)).chain(self.wanted.values().filter_map(|id| *id)) {
            ids.take(id);
        }
        let mut claims: BTreeMap<SegmentationId, PortId> = BTreeMap::new();
        let mut troubles = BTreeMap::new();
        let mut in_the_way: BTreeSet<PortId> =
            self.anew.iter().filter(|port| carries.contains_key(*port)).copied().collect();
        let mut add = Vec::new();
        let mut told: Vec<(PortId, SegmentationId)> =
            self.wanted.iter().filter_map(|(port, id)| id.map(|id| (*port, id))).collect();
        // Whoever has its id already keeps it.
        told.sort_by_key(|(port, id)| carries.get(port) != Some(&u32::from(id.get())));
        for (port, id) in told {
            if let Some(by) = claims.get(&id) {
                troubles.insert(port, Trouble::Claimed { id, by: *by });
                continue;
            }
            claims.insert(id, port);
            let there = carries.get(&port);
            if there == Some(&u32::from(id.get())) {
                continue;
            }
            if there.is_some() {
                in_the_way.insert(port);
            }
            match holders.get(&u32::from(id.get())) {
                Some(holder) if self.ours.contains(holder) => {
                    in_the_way.insert(*holder);
                }
                Some(by) => {
                    troubles.insert(port, Trouble::Taken { id, by: *by });
                }
                None if there.is_none() => add.push((port, id)),
                None => {}
            }
        }
        let mut without = Vec::new();
        let mut coming: Vec<(Turn, PortId)> = self.turns.iter().map(|(port, turn)| (*turn, *port)).collect();
        coming.sort_unstable();
        for (_, port) in coming {
            match carries.get(&port) {
                Some(there) if vlan(*there).is_some() => {}
                Some(_) => {
                    in_the_way.insert(port);
                }
                None if self.refused.contains(&port) => {}
                None => match ids.give() {
                    Some(id) => add.push((port, id)),
                    None => without.push(port),
                },
            }
        }
        add.retain(|(port, _)| !self.refused.contains(port));
        troubles.extend(
            self.refused.iter().filter(|port| !carries.contains_key(port)).map(|port| (*port, Trouble::Refused)),
        );
        let is_stale = |port: &&PortId| self.ours.contains(port) && !self.wanted.contains_key(port);
        let stale: Vec<PortId> = carries.keys().filter(is_stale).copied().take(self.batch).collect();
        // What is about to go makes room.
        if stale.is_empty() && in_the_way.is_empty() {
            troubles.extend(without.into_iter().map(|port| (port, Trouble::Full)));
        }
        let step = if !in_the_way.is_empty() {
            Some(Step::Remove(in_the_way.into_iter().take(self.batch).collect()))
        } else if !stale.is_empty() && (self.tidy || add.is_empty()) {
            Some(Step::Remove(stale))
        } else {
            let spare = |port: &PortId| self.turns.get(port).is_some_and(|turn| turn.spare);
            let waited_for = add.iter().filter(|(port, _)| !spare(port)).count();
            if waited_for > 0 {
                add.truncate(waited_for.max(FILLED_UP));
            }
            add.truncate(self.batch);
            (!add.is_empty()).then_some(Step::Add(add))
        };
        Plan { step, troubles }
    }

    /// How a step ended.
    pub fn tell(&mut self, step: &Step, outcome: Outcome) {
        match outcome {
            Outcome::Done(subports) => {
                self.saw(&subports);
                match step {
                    Step::Read => return,
                    Step::Remove(_) => self.tidy = false,
                    Step::Add(added) => {
                        self.tidy = true;
                        self.last = added.last().map_or(self.last, |(_, id)| *id);
                    }
                }
                self.batch = (self.batch * 2).min(MOST_AT_ONCE);
            }
            Outcome::Refused => {
                // Which of them it was is found by asking for fewer; what it was may be seen on the trunk.
                self.carries = None;
                match step {
                    Step::Add(subports) if subports.len() == 1 => {
                        self.refused.extend(subports.iter().map(|(port, _)| *port));
                    }
                    Step::Add(subports) => self.batch = subports.len() / 2,
                    Step::Remove(ports) => self.batch = (ports.len() / 2).max(1),
                    Step::Read => {}
                }
            }
            Outcome::Unknown => self.carries = None,
            Outcome::NotDone => {}
        }
    }

    fn saw(&mut self, subports: &[Subport]) {
        let carries: BTreeMap<PortId, u32> = subports.iter().map(|sub| (sub.port_id, sub.segmentation_id)).collect();
        self.ours.retain(|port| carries.contains_key(port) || self.wanted.contains_key(port));
        self.anew.retain(|port| carries.contains_key(port));
        self.carries = Some(carries);
    }
}

fn vlan(id: u32) -> Option<SegmentationId> {
    u16::try_from(id).ok().and_then(|id| id.try_into().ok())
}
