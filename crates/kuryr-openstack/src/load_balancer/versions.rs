//! What this Octavia can do, by the version of its API. What its providers can do is another matter: they answer 501.

use super::LoadBalancing;
use crate::Error;
use serde::Deserialize;
use std::fmt;

/// A version of Octavia's API. Every version can do all that the ones before it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion(pub u16, pub u16);

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// What not every Octavia has. In the order in which it came, after the API's own history of versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Tags.
    Tags,
    /// Flavors.
    Flavors,
    /// `allowed_cidrs` of listeners.
    AllowedCidrs,
    /// The algorithm `SOURCE_IP_PORT`.
    SourceIpPort,
    /// Availability zones.
    AvailabilityZones,
    /// Health monitors of types `HTTP` and `TCP` for UDP.
    UdpMonitors,
    /// Listener pools with protocol `PROXYV2`.
    ProxyV2,
    /// SCTP.
    Sctp,
    /// Listeners with protocol `PROMETHEUS`.
    Prometheus,
    /// Load balancers with several addresses.
    AdditionalVips,
}

impl Feature {
    /// All.
    pub const ALL: [Self; 10] = [
        Self::Tags,
        Self::Flavors,
        Self::AllowedCidrs,
        Self::SourceIpPort,
        Self::AvailabilityZones,
        Self::UdpMonitors,
        Self::ProxyV2,
        Self::Sctp,
        Self::Prometheus,
        Self::AdditionalVips,
    ];

    /// The version with which it came.
    #[must_use]
    pub fn since(self) -> ApiVersion {
        let minor = match self {
            Self::Tags => 5,
            Self::Flavors => 6,
            Self::AllowedCidrs => 12,
            Self::SourceIpPort => 13,
            Self::AvailabilityZones => 14,
            Self::UdpMonitors => 16,
            Self::ProxyV2 => 22,
            Self::Sctp => 23,
            Self::Prometheus => 25,
            Self::AdditionalVips => 26,
        };
        ApiVersion(2, minor)
    }
}

impl ApiVersion {
    /// Whether it has this.
    #[must_use]
    pub fn has(self, feature: Feature) -> bool {
        self >= feature.since()
    }

    /// Reads `v2.26`, `v2`.
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.strip_prefix('v')?.split_once('.').unwrap_or((text.strip_prefix('v')?, "0"));
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

#[derive(Deserialize)]
struct Version {
    id: String,
}

/// The newest of the second series. Versions that cannot be read are newer than this Kuryr.
fn newest(versions: &[Version]) -> ApiVersion {
    let known = versions.iter().filter_map(|version| ApiVersion::parse(&version.id)).filter(|version| version.0 == 2);
    known.max().unwrap_or(ApiVersion(2, 0))
}

impl LoadBalancing {
    /// The newest version of its API. It does not change while Octavia runs: asking once is enough.
    pub async fn api_version(&self) -> Result<ApiVersion, Error> {
        let versions: Vec<Version> = self.rest.discover("versions").await?;
        Ok(newest(&versions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest_of(ids: &[&str]) -> ApiVersion {
        let versions: Vec<_> = ids.iter().map(|id| Version { id: (*id).to_owned() }).collect();
        newest(&versions)
    }

    #[test]
    fn the_newest_version_counts_by_number_not_by_text() {
        assert_eq!(newest_of(&["v2.0", "v2.9", "v2.26", "v2.3", "v1"]), ApiVersion(2, 26));
        assert_eq!(newest_of(&["v2"]), ApiVersion(2, 0));
        assert_eq!(newest_of(&["v3.1", "latest", ""]), ApiVersion(2, 0));
    }

    #[test]
    fn features_come_one_after_the_other_and_stay() {
        assert!(Feature::ALL.windows(2).all(|pair| pair[0] < pair[1] && pair[0].since() < pair[1].since()));
        let zed = ApiVersion(2, 26);
        assert!(Feature::ALL.iter().all(|feature| zed.has(*feature)));
        assert!(ApiVersion(2, 12).has(Feature::AllowedCidrs) && !ApiVersion(2, 11).has(Feature::AllowedCidrs));
        assert!(!ApiVersion(2, 25).has(Feature::AdditionalVips));
        assert_eq!(zed.to_string(), "2.26");
    }
}
