//! The versions of the CNI specification, and what changed between them.

use super::{CniError, Code};
use serde::{Deserialize, Serialize};

/// A version of the specification that the daemon speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CniVersion {
    /// Results with interfaces and addresses.
    #[serde(rename = "0.3.1")]
    V0_3_1,
    /// CHECK.
    #[serde(rename = "0.4.0")]
    V0_4_0,
    /// Addresses no longer say whether they are IPv4 or IPv6.
    #[serde(rename = "1.0.0")]
    V1_0_0,
    /// GC and STATUS; interfaces have an MTU.
    #[serde(rename = "1.1.0")]
    V1_1_0,
}

impl CniVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// What errors are written in for who has not said what it speaks.
    pub const LATEST: Self = Self::V1_1_0;

    /// As the specification writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version that a network configuration asks for.
    ///
    /// # Errors
    /// It is none of ours. A configuration without version means 0.1.0, says the specification.
    pub fn negotiate(asked: Option<&str>) -> Result<Self, CniError> {
        let asked = asked.unwrap_or("0.1.0");
        Self::ALL.into_iter().find(|version| version.as_str() == asked).ok_or_else(|| {
            let supported = Self::ALL.map(Self::as_str).join(", ");
            CniError::new(
                Code::IncompatibleVersion,
                format!("the network configuration asks for CNI version {asked:?}; supported are {supported}"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_we_can_write_is_agreed_on() {
        for version in CniVersion::ALL {
            assert_eq!(CniVersion::negotiate(Some(version.as_str())), Ok(version));
            assert_eq!(serde_json::to_value(version).unwrap(), version.as_str());
        }
        for other in [None, Some(""), Some("0.3.0"), Some("1.2.0"), Some("1.1")] {
            assert_eq!(CniVersion::negotiate(other).unwrap_err().code, Code::IncompatibleVersion);
        }
    }
}
