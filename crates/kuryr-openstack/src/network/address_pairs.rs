//! The addresses besides its own that a port may use: for pods that share the interface of a virtual machine.

use super::Network;
use crate::{Error, rest::Wrapped};
use http::Method;
use kuryr_model::{PortId, neutron::AddressPair};
use serde::{Deserialize, Serialize};

/// `allowed_address_pairs` of a port, as of one revision of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AddressPairs {
    /// The pairs.
    #[serde(default, rename = "allowed_address_pairs")]
    pub pairs: Vec<AddressPair>,
    /// The port's revision.
    #[serde(default)]
    pub revision_number: u64,
}

impl Network {
    /// What a port may use besides its own addresses.
    ///
    /// # Errors
    /// Neutron's; [`Error::is_not_found`] if there is no such port.
    pub async fn address_pairs(&self, port: PortId) -> Result<AddressPairs, Error> {
        let query = "fields=allowed_address_pairs&fields=revision_number".to_owned();
        self.rest.ask("ports", &format!("/ports/{port}"), query, "port").await
    }

    /// Replaces all pairs of a port, if it still has this revision.
    ///
    /// # Errors
    /// Neutron's; [`Error::is_stale`] if somebody else was faster; `AllowedAddressPairExhausted` if they are more than
    /// Neutron's setting `max_allowed_address_pair`, which is 10 unless changed.
    pub async fn set_address_pairs(
        &self,
        port: PortId,
        pairs: &[AddressPair],
        revision: u64,
    ) -> Result<AddressPairs, Error> {
        #[derive(Serialize)]
        struct Change<'a> {
            allowed_address_pairs: &'a [AddressPair],
        }
        let change = Wrapped("port", &Change { allowed_address_pairs: pairs });
        self.rest.tell(Method::PUT, "ports", &format!("/ports/{port}"), &change, "port", Some(revision)).await
    }
}
