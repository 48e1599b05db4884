//! Which interface of a virtual machine belongs to a port.

use super::PlugError;
use crate::netlink::Link;
use kuryr_model::{Parent, Vif};

/// Kinds of links that have the Ethernet address of another link, or any, and are nobody's port.
const NOT_A_NIC: [&str; 9] = ["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "bridge", "dummy", "ifb", "vrf"];

/// The link that carries the pods' interfaces: the one of the name `setting`, or the one that has the parent port's Ethernet address.
///
/// # Errors
/// There is none, or more than one; or it cannot carry `vif`.
pub(super) fn choose<'a>(
    links: &'a [Link],
    setting: Option<&str>,
    parent: Parent,
    vif: &Vif,
) -> Result<&'a Link, PlugError> {
    let nic = match setting {
        Some(name) => links.iter().find(|link| link.name == name).ok_or_else(|| PlugError::BadNic {
            nic: name.to_owned(),
            reason: "there is no interface of that name; correct [daemon] nic".to_owned(),
        })?,
        None => by_address(links, parent)?,
    };
    let refuse = |reason: String| Err(PlugError::BadNic { nic: nic.name.clone(), reason });
    if !nic.up {
        return refuse("it is switched off; switch it on".to_owned());
    }
    if nic.mtu < vif.mtu {
        return refuse(format!(
            "its MTU is {} and the pod network's is {}; set it to {} or more",
            nic.mtu, vif.mtu, vif.mtu
        ));
    }
    Ok(nic)
}

fn by_address(links: &[Link], parent: Parent) -> Result<&Link, PlugError> {
    let fits = |link: &&Link| link.mac == Some(parent.mac) && !NOT_A_NIC.contains(&&*link.kind);
    let found: Vec<&Link> = links.iter().filter(fits).collect();
    // The members of a bond have its address, and frames reach its sub-interfaces only.
    let bonds: Vec<&Link> = found.iter().copied().filter(|link| matches!(&*link.kind, "bond" | "team")).collect();
    let error = |found: String, one: bool, fix: &'static str| {
        Err(PlugError::NoNic { found, one, mac: parent.mac, port: parent.port_id, fix })
    };
    match (&*bonds, &*found) {
        ([nic], _) | ([], [nic]) => Ok(nic),
        ([], []) => error(
            "no interface".to_owned(),
            true,
            "is it the node's port, and has nobody changed the interface's address? Else set [daemon] nic",
        ),
        ([], several) | (several, _) => {
            let names: Vec<&str> = several.iter().map(|link| &*link.name).collect();
            error(format!("the interfaces {}", names.join(" and ")), false, "say in [daemon] nic which it is")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use kuryr_model::MacAddress;

    fn link(name: &str, kind: &str, mac: u8) -> Link {
        Link {
            name: name.into(),
            kind: kind.into(),
            mac: Some(MacAddress([mac; 6])),
            mtu: 1500,
            up: true,
            ..Link::default()
        }
    }

    fn chosen(links: &[Link], setting: Option<&str>) -> Result<String, String> {
        let parent = Parent { port_id: testing::port_id(7), mac: MacAddress([2; 6]) };
        choose(links, setting, parent, &testing::vif(1))
            .map(|link| link.name.clone())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_interface_is_known_by_its_ports_address_and_not_by_what_borrows_it() {
        let links = [
            link("lo", "", 0),
            link("br0", "bridge", 2),
            link("ens3", "", 2),
            link("ens4", "", 4),
            link("ens3.7", "vlan", 2),
            link("mv0", "macvlan", 2),
        ];
        assert_eq!(chosen(&links, None), Ok("ens3".into()));
        assert_eq!(chosen(&links, Some("ens4")), Ok("ens4".into()));
    }

    #[test]
    fn members_of_a_bond_are_not_its_interface() {
        let links = [link("ens3", "", 2), link("ens4", "", 2), link("bond0", "bond", 2)];
        assert_eq!(chosen(&links, None), Ok("bond0".into()));
        assert!(chosen(&links[..2], None).unwrap_err().contains("the interfaces ens3 and ens4 on this node have"));
    }

    #[test]
    fn what_cannot_carry_pods_is_refused_with_what_to_do() {
        let error = chosen(&[link("ens3", "", 3)], None).unwrap_err();
        assert!(error.starts_with("no interface on this node has the Ethernet address 02:02"), "{error}");
        assert!(chosen(&[], Some("ens9")).unwrap_err().contains("correct [daemon] nic"));
        let narrow = Link { mtu: 1400, ..link("ens3", "", 2) };
        assert!(chosen(&[narrow], None).unwrap_err().contains("set it to 1442 or more"));
        let off = Link { up: false, ..link("ens3", "", 2) };
        assert!(chosen(&[off], None).unwrap_err().contains("switch it on"));
    }
}
