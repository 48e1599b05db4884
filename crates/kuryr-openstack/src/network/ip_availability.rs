//! How full subnets are. Needs the extension `network-ip-availability`; usually only administrators may ask.

use super::{Kind, Network};
use crate::Error;
use kuryr_model::{NetworkId, SubnetId};
use serde::Deserialize;

const KIND: Kind = Kind {
    path: "network-ip-availabilities",
    plural: "network_ip_availabilities",
    single: "network_ip_availability",
    fields: &[],
};

/// How full one subnet is.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct SubnetUse {
    /// The subnet.
    pub subnet_id: SubnetId,
    /// Addresses in use.
    pub used_ips: u64,
    /// Addresses in its allocation pools. That of an IPv6 subnet is beyond 64 bits.
    pub total_ips: f64,
}

impl Network {
    /// How full the subnets of a network are.
    pub async fn ip_availability(&self, network: NetworkId) -> Result<Vec<SubnetUse>, Error> {
        #[derive(Deserialize)]
        struct Availability {
            subnet_ip_availability: Vec<SubnetUse>,
        }
        let answer: Availability = self.rest.get(&KIND, network).await?;
        Ok(answer.subnet_ip_availability)
    }
}
