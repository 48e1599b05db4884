//! Trunks and their subports.
//!
//! Neutron does not cope with two requests for the subports of one trunk at a time: one writer for each trunk, please.

use super::{Filter, Kind, Network, Rest};
use crate::Error;
use http::Method;
use kuryr_model::{PortId, SegmentationId, TrunkId, neutron::Trunk};
use serde::Serialize;

const KIND: Kind = Kind {
    path: "trunks",
    plural: "trunks",
    single: "trunk",
    fields: &["id", "name", "port_id", "status", "admin_state_up", "sub_ports", "tags"],
};

/// A trunk to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewTrunk {
    /// For people.
    pub name: String,
    /// Its parent port. It may be bound already if it is Open vSwitch with OVN that has it; else only before that.
    pub port_id: PortId,
}

/// A subport to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct NewSubport {
    port_id: PortId,
    segmentation_type: &'static str,
    segmentation_id: SegmentationId,
}

/// The calls.
#[derive(Clone, Copy, Debug)]
pub struct Trunks<'a>(&'a Rest);

impl Network {
    /// Trunks.
    #[must_use]
    pub fn trunks(&self) -> Trunks<'_> {
        Trunks(&self.rest)
    }
}

impl Trunks<'_> {
    /// Those that the filter lets through. Neutron cannot filter by status or by subports.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Trunk>, Error> {
        self.0.list(&KIND, filter).await
    }

    /// One.
    pub async fn get(&self, id: TrunkId) -> Result<Trunk, Error> {
        self.0.get(&KIND, id).await
    }

    /// The one that has this parent port, if it is a trunk's.
    pub async fn of_parent(&self, port: PortId) -> Result<Option<Trunk>, Error> {
        Ok(self.list(&Filter::new().with("port_id", port)).await?.pop())
    }

    /// Creates one.
    pub async fn create(&self, trunk: &NewTrunk) -> Result<Trunk, Error> {
        self.0.create(&KIND, trunk).await
    }

    /// Deletes one, and with it the tie to its subports; those ports stay. One that is gone already is deleted.
    pub async fn delete(&self, id: TrunkId) -> Result<(), Error> {
        self.0.delete(&KIND, id).await
    }

    /// Adds all subports, or none; the trunk as it is then. A port must have an empty `device_id`, and its network no larger MTU
    /// than the parent's. A port that is a subport already, even here with that id, is refused:
    /// [`Error::is_about_subports`] tells a refusal that is about one of these from others.
    pub async fn add_subports(&self, id: TrunkId, subports: &[(PortId, SegmentationId)]) -> Result<Trunk, Error> {
        let new = |(port_id, segmentation_id): &(PortId, SegmentationId)| NewSubport {
            port_id: *port_id,
            segmentation_type: "vlan",
            segmentation_id: *segmentation_id,
        };
        let new: Vec<NewSubport> = subports.iter().map(new).collect();
        self.change(id, "add_subports", "trunks/add_subports", &new).await
    }

    /// Removes all these subports, or none; the trunk as it is then. The ports stay. One that is not there is refused.
    pub async fn remove_subports(&self, id: TrunkId, ports: &[PortId]) -> Result<Trunk, Error> {
        #[derive(Serialize)]
        struct Old {
            port_id: PortId,
        }
        let old: Vec<Old> = ports.iter().map(|port| Old { port_id: *port }).collect();
        self.change(id, "remove_subports", "trunks/remove_subports", &old).await
    }

    async fn change(
        &self,
        id: TrunkId,
        verb: &str,
        resource: &'static str,
        subports: &impl Serialize,
    ) -> Result<Trunk, Error> {
        #[derive(Serialize)]
        struct Body<'a, T> {
            sub_ports: &'a T,
        }
        // The only calls of Neutron whose answer is not under a key.
        let path = format!("/trunks/{id}/{verb}");
        self.0.tell_bare(Method::PUT, resource, &path, &Body { sub_ports: subports }).await
    }
}
