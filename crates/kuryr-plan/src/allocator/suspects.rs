//! Pods for which there may be ports in Neutron that are recorded nowhere.
//!
//! A request whose answer was lost may have been carried out, or be carried out later: Neutron does not notice that nobody
//! waits any more. So the port of a suspect is looked up by its mark before another one is made, and when what is late must
//! have come ([`LATE`]), it is looked once more, and what its `KuryrPort` does not name is deleted. If the pod goes before that, what
//! there is for it is deleted at once, too.

use crate::pod::Pod;
use kuryr_model::{KuryrPort, ObjectKey, PodUid, PortId};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

/// How long after its answer was given up a request may still be carried out: longer than the database below Neutron waits
/// for a lock (50 s). What comes later yet is found by the search at every `prune_interval`.
pub const LATE: Duration = Duration::from_secs(75);

/// The suspects.
#[derive(Debug, Default)]
pub struct Suspects {
    /// All ports with our mark were listed, so who is no suspect has none.
    listed: bool,
    pods: HashMap<ObjectKey, HashMap<PodUid, Suspect>>,
    /// Those of which only the UID is known.
    nameless: HashSet<PodUid>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Suspect {
    /// Until when ports may appear; `None`: what there is can be seen.
    late: Option<Duration>,
    /// The pod is gone, and what there was for it was deleted.
    swept: bool,
}

/// Delete the ports that there are for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Whose.
    pub uid: PodUid,
    /// All but these, which its `KuryrPort` names.
    pub keep: BTreeSet<PortId>,
}

impl Suspects {
    /// There may be a port for this pod; `late`: one may still appear, for a request was given up.
    pub fn add(&mut self, key: &ObjectKey, uid: &PodUid, late: bool, now: Duration) {
        let suspect = self.pods.entry(key.clone()).or_default().entry(uid.clone()).or_default();
        suspect.swept = false;
        if late {
            suspect.late = Some(now + LATE);
        }
    }

    /// All ports with our mark were listed. `found` are the pods that have one that is recorded nowhere, with their names where
    /// these are known.
    pub fn listed(&mut self, found: impl IntoIterator<Item = (PodUid, Option<ObjectKey>)>) {
        self.listed = true;
        self.nameless.clear();
        for (uid, key) in found {
            match key {
                Some(key) => drop(self.pods.entry(key).or_default().entry(uid).or_default()),
                None => drop(self.nameless.insert(uid)),
            }
        }
    }

    /// Whether a pod's port has to be looked up before one is made for it.
    #[must_use]
    pub fn may_have_one(&self, key: &ObjectKey, uid: &PodUid) -> bool {
        !self.listed || self.nameless.contains(uid) || self.of(key, uid).is_some()
    }

    /// The pod's port is in its `KuryrPort` now. It stays a suspect while a second one may appear.
    pub fn recorded(&mut self, key: &ObjectKey, uid: &PodUid) {
        self.nameless.remove(uid);
        if self.of(key, uid).is_some_and(|suspect| suspect.late.is_none()) {
            self.remove(key, uid);
        }
    }

    /// What is to be deleted of the suspects of this name, by its pod and its `KuryrPort` as they are.
    #[must_use]
    pub fn sweeps(&self, key: &ObjectKey, pod: Option<&Pod>, port: Option<&KuryrPort>, now: Duration) -> Vec<Sweep> {
        let suspects = self.pods.get(key).into_iter().flatten();
        let sweep = |(uid, suspect): (&PodUid, &Suspect)| {
            let keep: BTreeSet<PortId> =
                port.filter(|port| port.spec.pod_uid == *uid).into_iter().flat_map(KuryrPort::port_ids).collect();
            // Who waits still has it looked up by the request itself.
            let waits = || pod.is_some_and(|pod| pod.uid == *uid && pod.keeps_ports());
            let due =
                if keep.is_empty() { !waits() && (!suspect.swept || suspect.over(now)) } else { suspect.over(now) };
            due.then(|| Sweep { uid: uid.clone(), keep })
        };
        suspects.filter_map(sweep).collect()
    }

    /// A sweep that began at `begun` is done.
    pub fn swept(&mut self, key: &ObjectKey, uid: &PodUid, begun: Duration) {
        match self.pods.get_mut(key).and_then(|suspects| suspects.get_mut(uid)) {
            Some(suspect) if !suspect.over(begun) => suspect.swept = true,
            Some(_) => self.remove(key, uid),
            None => {}
        }
    }

    /// Time until the next look at the suspects of this name, if there is to be one: some may have ports that are late.
    #[must_use]
    pub fn look_after(&self, key: &ObjectKey, now: Duration) -> Option<Duration> {
        let late = self.pods.get(key)?.values().filter_map(|suspect| suspect.late);
        late.filter(|late| *late > now).min().map(|late| late - now)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.nameless.len() + self.pods.values().map(HashMap::len).sum::<usize>()
    }

    fn of(&self, key: &ObjectKey, uid: &PodUid) -> Option<&Suspect> {
        self.pods.get(key)?.get(uid)
    }

    fn remove(&mut self, key: &ObjectKey, uid: &PodUid) {
        if let Some(suspects) = self.pods.get_mut(key) {
            suspects.remove(uid);
            if suspects.is_empty() {
                self.pods.remove(key);
            }
        }
    }
}

impl Suspect {
    /// Nothing can appear any more.
    fn over(&self, now: Duration) -> bool {
        self.late.is_none_or(|late| late <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    const NOW: Duration = Duration::from_secs(1000);

    fn key() -> ObjectKey {
        ObjectKey::new("shop", "web-0")
    }

    fn pod(uid: &str) -> Pod {
        fixtures::pod(&key(), &uid.into())
    }

    fn recorded(uid: &str) -> KuryrPort {
        fixtures::kuryr_port(&key(), &uid.into(), "aaaaaaaa-bbbb-cccc-dddd-0000000000ff".parse().unwrap())
    }

    fn suspects() -> Suspects {
        let mut suspects = Suspects::default();
        suspects.listed([]);
        suspects
    }

    #[test]
    fn until_all_ports_were_listed_everybody_is_suspect() {
        let mut suspects = Suspects::default();
        assert!(suspects.may_have_one(&key(), &"a".into()));
        suspects.listed([("b".into(), Some(key())), ("c".into(), None)]);
        for (uid, suspect) in [("a", false), ("b", true), ("c", true)] {
            assert_eq!(suspects.may_have_one(&key(), &uid.into()), suspect, "{uid}");
        }
        suspects.listed([]);
        assert!(!suspects.may_have_one(&key(), &"c".into()), "one that is not found any more is forgotten");
    }

    #[test]
    fn a_second_port_that_comes_late_is_swept_when_nothing_can_come_any_more() {
        let mut suspects = suspects();
        suspects.add(&key(), &"a".into(), true, NOW);
        suspects.recorded(&key(), &"a".into());
        let (pod, port) = (pod("a"), recorded("a"));
        let sweeps = |suspects: &Suspects, now| suspects.sweeps(&key(), Some(&pod), Some(&port), now);
        assert_eq!(sweeps(&suspects, NOW), []);
        assert_eq!(suspects.look_after(&key(), NOW + Duration::from_secs(5)), Some(LATE - Duration::from_secs(5)));
        let keep = port.port_ids().collect();
        assert_eq!(sweeps(&suspects, NOW + LATE), [Sweep { uid: "a".into(), keep }]);
        suspects.swept(&key(), &"a".into(), NOW + LATE);
        assert_eq!((suspects.count(), suspects.look_after(&key(), NOW + LATE)), (0, None));
    }

    #[test]
    fn one_who_waits_has_its_port_looked_up_and_loses_none() {
        let mut suspects = suspects();
        suspects.add(&key(), &"a".into(), true, NOW);
        for now in [NOW, NOW + LATE] {
            assert_eq!(suspects.sweeps(&key(), Some(&pod("a")), None, now), []);
        }
        assert!(suspects.may_have_one(&key(), &"a".into()));
        let going = Pod { deleting: true, ..pod("a") };
        assert_eq!(suspects.sweeps(&key(), Some(&going), None, NOW), [], "its sandbox may be there yet");
    }

    #[test]
    fn the_ports_of_one_that_is_gone_are_swept_at_once_and_again_when_the_late_ones_have_come() {
        let all = |uid: &str| [Sweep { uid: uid.into(), keep: BTreeSet::new() }];
        for now_there in [None, Some(pod("b")), Some(Pod { completed: true, ..pod("a") })] {
            let mut suspects = suspects();
            suspects.add(&key(), &"a".into(), true, NOW);
            let sweeps = |suspects: &Suspects, now| suspects.sweeps(&key(), now_there.as_ref(), None, now);
            assert_eq!(sweeps(&suspects, NOW), all("a"));
            suspects.swept(&key(), &"a".into(), NOW);
            assert_eq!(sweeps(&suspects, NOW), [], "once is enough");
            assert_eq!(sweeps(&suspects, NOW + LATE), all("a"));
            suspects.swept(&key(), &"a".into(), NOW + LATE);
            assert_eq!(suspects.count(), 0);
        }
    }

    #[test]
    fn what_can_be_seen_needs_no_second_look() {
        let mut suspects = suspects();
        suspects.add(&key(), &"a".into(), false, NOW);
        assert_eq!(suspects.look_after(&key(), NOW), None);
        suspects.recorded(&key(), &"a".into());
        assert_eq!(suspects.count(), 0);
        suspects.add(&key(), &"a".into(), false, NOW);
        suspects.swept(&key(), &"a".into(), NOW);
        assert_eq!(suspects.count(), 0);
    }
}
