//! Results of ADD, as each version of the specification writes them, and what CHECK gets back of them.

use super::{AttachmentId, CniError, CniVersion, Code};
use crate::plug::mark::host_end_name;
use ipnet::IpNet;
use kuryr_model::{MacAddress, Vif};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{net::IpAddr, path::Path};

/// What ADD answers for VIFs that are plugged into the namespace `netns`: for each one its host end and its interface in
/// the pod, then addresses and routes.
#[must_use]
pub fn render(version: CniVersion, vifs: &[Vif], netns: &Path) -> Value {
    let mut interfaces = Vec::new();
    let mut ips = Vec::new();
    let mut routes = Vec::new();
    for (index, vif) in vifs.iter().enumerate() {
        interfaces.push(json!({ "name": host_end_name(vif.port_id) }));
        for address in &vif.addresses {
            let ip = format!("{}/{}", address.ip, address.prefix_length);
            let mut entry =
                Map::from_iter([("address".to_owned(), ip.into()), ("interface".to_owned(), interfaces.len().into())]);
            if version < CniVersion::V1_0_0 {
                entry.insert("version".to_owned(), if address.ip.is_ipv4() { "4" } else { "6" }.into());
            }
            if let Some(gateway) = address.gateway {
                entry.insert("gateway".to_owned(), gateway.to_string().into());
                // Only the first VIF has default routes.
                if index == 0 {
                    routes.push(json!({ "dst": default_route(address.ip), "gw": gateway }));
                }
            }
            ips.push(Value::Object(entry));
        }
        routes.extend(vif.routes.iter().map(|route| json!({ "dst": route.destination, "gw": route.gateway })));
        let mut inside = json!({ "name": vif.interface, "mac": vif.mac, "sandbox": netns });
        if version >= CniVersion::V1_1_0 {
            inside["mtu"] = vif.mtu.into();
        }
        interfaces.push(inside);
    }
    json!({ "cniVersion": version, "interfaces": interfaces, "ips": ips, "routes": routes, "dns": {} })
}

fn default_route(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "0.0.0.0/0" } else { "::/0" }
}

/// As much of an earlier result as CHECK compares. Plugins after us in a chain may have added to it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct PrevResult {
    #[serde(default)]
    interfaces: Vec<PrevInterface>,
    #[serde(default)]
    ips: Vec<PrevIp>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct PrevInterface {
    name: String,
    #[serde(default)]
    mac: Option<String>,
    #[serde(default)]
    sandbox: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct PrevIp {
    address: IpNet,
}

impl PrevResult {
    /// Reads `prevResult`.
    ///
    /// # Errors
    /// It is missing, or not a result.
    pub fn read(value: Option<&Value>) -> Result<Self, CniError> {
        let Some(value) = value else {
            let message = "CHECK needs \"prevResult\" in the network configuration: what ADD has answered";
            return Err(CniError::new(Code::Configuration, message));
        };
        Self::deserialize(value)
            .map_err(|error| CniError::new(Code::Decode, "cannot decode \"prevResult\"").details(error.to_string()))
    }

    /// What of these VIFs the result does not have, in words.
    #[must_use]
    pub fn lacks(&self, id: &AttachmentId, vifs: &[Vif]) -> Vec<String> {
        let mut lacks = Vec::new();
        for vif in vifs {
            let inside = self.interfaces.iter().find(|interface| {
                interface.name == vif.interface && interface.sandbox.as_ref().is_some_and(|sandbox| !sandbox.is_empty())
            });
            match inside {
                None => lacks
                    .push(format!("prevResult has no interface {} in container {}", vif.interface, id.container_id)),
                Some(PrevInterface { mac: Some(mac), .. }) if mac.parse::<MacAddress>().ok() != Some(vif.mac) => {
                    lacks.push(format!("prevResult has {} with MAC {mac}, the port has {}", vif.interface, vif.mac));
                }
                Some(_) => {}
            }
            for address in &vif.addresses {
                let ours =
                    |ip: &PrevIp| ip.address.addr() == address.ip && ip.address.prefix_len() == address.prefix_length;
                if !self.ips.iter().any(ours) {
                    lacks.push(format!("prevResult has no address {}/{}", address.ip, address.prefix_length));
                }
            }
        }
        lacks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn id() -> AttachmentId {
        AttachmentId { container_id: "c0ffee".into(), ifname: "eth0".into() }
    }

    #[test]
    fn each_version_has_its_own_result() {
        let vif = testing::vif(1);
        let result = |version| render(version, std::slice::from_ref(&vif), Path::new("/run/netns/x"));
        let mut expected = json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                { "name": "tap00000001-00" },
                { "name": "eth0", "mac": "fa:16:3e:00:00:01", "sandbox": "/run/netns/x", "mtu": 1442 },
            ],
            "ips": [
                { "address": "10.1.0.1/16", "gateway": "10.1.255.254", "interface": 1 },
                { "address": "fd00::1/64", "gateway": "fd00::ffff", "interface": 1 },
            ],
            "routes": [
                { "dst": "0.0.0.0/0", "gw": "10.1.255.254" },
                { "dst": "::/0", "gw": "fd00::ffff" },
                { "dst": "192.0.2.0/24", "gw": "10.1.0.254" },
            ],
            "dns": {},
        });
        assert_eq!(result(CniVersion::V1_1_0), expected);
        expected["cniVersion"] = "1.0.0".into();
        expected["interfaces"][1].as_object_mut().unwrap().remove("mtu");
        assert_eq!(result(CniVersion::V1_0_0), expected);
        expected["ips"][0]["version"] = "4".into();
        expected["ips"][1]["version"] = "6".into();
        for version in [CniVersion::V0_4_0, CniVersion::V0_3_1] {
            expected["cniVersion"] = version.as_str().into();
            assert_eq!(result(version), expected);
        }
    }

    #[test]
    fn only_the_first_vif_has_default_routes_and_every_address_its_interface() {
        let mut second = testing::vif(2);
        second.interface = "net1".into();
        second.routes.clear();
        let result = render(CniVersion::V1_1_0, &[testing::vif(1), second], Path::new("/x"));
        assert_eq!(result["routes"].as_array().unwrap().len(), 3);
        let interface =
            |ip: usize| result["interfaces"][result["ips"][ip]["interface"].as_u64().unwrap() as usize]["name"].clone();
        assert_eq!((interface(0), interface(3)), ("eth0".into(), "net1".into()));
    }

    #[test]
    fn a_result_of_ours_lacks_nothing_even_with_additions() {
        let vifs = [testing::vif(1)];
        for version in CniVersion::ALL {
            let mut result = render(version, &vifs, Path::new("/x"));
            result["ips"].as_array_mut().unwrap().push(json!({ "address": "169.254.1.1/32" }));
            assert_eq!(PrevResult::read(Some(&result)).unwrap().lacks(&id(), &vifs), Vec::<String>::new());
        }
    }

    #[test]
    fn what_a_result_lacks_is_named() {
        let vifs = [testing::vif(1)];
        let mut result = render(CniVersion::V1_1_0, &vifs, Path::new("/x"));
        result["interfaces"][1]["mac"] = "fa:16:3e:00:00:99".into();
        result["ips"].as_array_mut().unwrap().remove(0);
        let lacks = PrevResult::read(Some(&result)).unwrap().lacks(&id(), &vifs);
        assert_eq!(lacks.len(), 2, "{lacks:?}");
        assert!(lacks[0].contains("fa:16:3e:00:00:99") && lacks[1].contains("10.1.0.1/16"), "{lacks:?}");
        assert_eq!(PrevResult::default().lacks(&id(), &vifs).len(), 3);
        assert_eq!(PrevResult::read(None).unwrap_err().code, Code::Configuration);
        assert_eq!(PrevResult::read(Some(&json!({ "ips": [{ "address": "x" }] }))).unwrap_err().code, Code::Decode);
    }
}
