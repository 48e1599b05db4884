//! VLAN ids of the subports of trunks.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt};

/// What tells a trunk's subports apart on the wire: a VLAN id, 1 to 4094. Each trunk has its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u16", try_from = "u16")]
pub struct SegmentationId(u16);

/// The number is no VLAN id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a segmentation id; those of VLANs are 1 to 4094")]
pub struct NotASegmentationId(u16);

impl SegmentationId {
    /// The lowest. 0 means a frame without a VLAN.
    pub const MIN: Self = Self(1);
    /// The highest. 4095 is reserved (IEEE 802.1Q, table 9-2).
    pub const MAX: Self = Self(4094);
    /// How many there are: the most subports that a trunk can have.
    pub const COUNT: usize = 4094;

    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }

    /// The next one, and after the last the first.
    #[must_use]
    pub fn after(self) -> Self {
        if self == Self::MAX { Self::MIN } else { Self(self.0 + 1) }
    }
}

impl TryFrom<u16> for SegmentationId {
    type Error = NotASegmentationId;

    fn try_from(number: u16) -> Result<Self, Self::Error> {
        let id = Self(number);
        if (Self::MIN..=Self::MAX).contains(&id) { Ok(id) } else { Err(NotASegmentationId(number)) }
    }
}

impl From<SegmentationId> for u16 {
    fn from(id: SegmentationId) -> Self {
        id.0
    }
}

impl fmt::Display for SegmentationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SegmentationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl JsonSchema for SegmentationId {
    fn schema_name() -> Cow<'static, str> {
        "SegmentationId".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": 4094 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ids_of_vlans_are_segmentation_ids() {
        for (number, is_one) in [(0, false), (1, true), (4094, true), (4095, false), (u16::MAX, false)] {
            assert_eq!(SegmentationId::try_from(number).is_ok(), is_one, "{number}");
            assert_eq!(serde_json::from_str::<SegmentationId>(&number.to_string()).is_ok(), is_one, "{number}");
        }
        assert_eq!(SegmentationId::MAX.after(), SegmentationId::MIN);
    }
}
