//! A trunk of a virtual machine, with the writer that Kuryr has.

use kuryr_model::{PortId, neutron::Subport};
use kuryr_plan::trunk::{Outcome, Step, Writer};
use std::collections::BTreeMap;

pub(crate) struct Trunk {
    pub(crate) writer: Writer,
    carries: BTreeMap<PortId, u32>,
    busy: bool,
}

/// How many subports a step is about.
pub(crate) fn size(step: &Step) -> usize {
    match step {
        Step::Read => 0,
        Step::Remove(ports) => ports.len(),
        Step::Add(subports) => subports.len(),
    }
}

impl Trunk {
    /// One that carries nothing.
    pub(crate) fn new() -> Self {
        let mut writer = Writer::new();
        writer.tell(&Step::Read, Outcome::Done(Vec::new()));
        Self { writer, carries: BTreeMap::new(), busy: false }
    }

    /// What is to be asked of Neutron now, if nothing is under way.
    pub(crate) fn next(&mut self) -> Option<Step> {
        let step = self.writer.plan().step.filter(|_| !self.busy);
        self.busy |= step.is_some();
        step
    }

    /// Neutron has done that.
    pub(crate) fn done(&mut self, step: &Step) {
        self.busy = false;
        match step {
            Step::Read => {}
            Step::Remove(ports) => self.carries.retain(|port, _| !ports.contains(port)),
            Step::Add(subports) => self.carries.extend(subports.iter().map(|(port, id)| (*port, id.get().into()))),
        }
        let shown = |(port, id): (&PortId, &u32)| Subport {
            port_id: *port,
            segmentation_type: "vlan".into(),
            segmentation_id: *id,
        };
        self.writer.tell(step, Outcome::Done(self.carries.iter().map(shown).collect()));
        if let Step::Add(subports) = step {
            for (port, _) in subports {
                self.writer.pin(*port);
            }
        }
    }
}
