//! What is known of Services whose listeners let in only whom the pods behind them would.

use kuryr_model::ObjectKey;
use kuryr_plan::policy::{Guard, Limits, Service};
use std::collections::{BTreeMap, HashMap};

/// What is known of these Services.
#[derive(Default)]
pub(super) struct Guards {
    /// As they were shown.
    pub(super) shown: HashMap<ObjectKey, Service>,
    /// What was told of their listeners.
    pub(super) known: HashMap<ObjectKey, Guard>,
    /// The limits of which their reconcilers know.
    pub(super) last: BTreeMap<ObjectKey, Limits>,
    /// What was looked at for them.
    pub(super) looked: u64,
    /// Some were held back.
    pub(super) held: bool,
    /// All groups and ports are known.
    pub(super) surveyed: bool,
}

impl Guards {
    /// Takes over a Service that is shown, with what is known of its listeners.
    pub(super) fn show(&mut self, key: &ObjectKey, service: Option<Service>) -> Option<Service> {
        let Some(mut service) = service.filter(|service| service.guard.is_some()) else {
            self.shown.remove(key);
            self.known.remove(key);
            return None;
        };
        if let Some(known) = self.known.get(key) {
            service.guard = Some(known.clone());
        }
        self.shown.insert(key.clone(), service.clone());
        Some(service)
    }

    /// Takes over what its listeners let in; the Service, if that is news.
    pub(super) fn tell(&mut self, key: &ObjectKey, guard: Guard) -> Option<Service> {
        let service = self.shown.get_mut(key)?;
        if self.known.get(key) == Some(&guard) {
            return None;
        }
        service.guard = Some(guard.clone());
        self.known.insert(key.clone(), guard);
        Some(service.clone())
    }
}
