//! Who has spoken to one pod at an address speaks to the next one there.

use super::{
    Sandbox,
    tests::{block_on, hello, plugger, sandbox, soon, vif},
};
use crate::{
    netlink::{
        Socket,
        link::{self, By},
    },
    netns::{
        self,
        testing::{isolated, namespace},
    },
};
use kuryr_model::{Vif, vif::PlugDriver};

#[test]
fn a_pod_is_reached_at_once_by_those_who_knew_another_at_its_address() {
    isolated("plug::announce_tests::a_pod_is_reached_at_once_by_those_who_knew_another_at_its_address", |directory| {
        let plugger = plugger();
        Socket::open().unwrap().run(&[link::bridge("brq0"), link::up(By::Name("brq0"))]).unwrap();
        let pod = |number: u128, address: u8| {
            let addresses = [format!("10.0.0.{address}/24"), format!("fd00::{address}/64")];
            let addresses: Vec<&str> = addresses.iter().map(|address| &**address).collect();
            let sandbox = sandbox(&namespace(directory, &format!("pod{number}")));
            let vif = vif(PlugDriver::Bridge, number, &addresses);
            block_on(plugger.plug(&vif, &sandbox, soon())).unwrap();
            (vif, sandbox)
        };
        let (_, client) = pod(1, 11);
        let (old, old_sandbox) = pod(2, 12);
        let greeted = |vif: &Vif, server: &Sandbox| {
            for ip in vif.addresses.iter().map(|address| address.ip) {
                let server = server.netns.clone();
                assert_eq!(netns::run(&client.netns, move || hello(&server, ip)).unwrap(), "hello");
            }
        };
        greeted(&old, &old_sandbox);
        block_on(plugger.unplug(&old, &old_sandbox)).unwrap();
        let (new, sandbox) = pod(3, 12);
        assert_ne!(old.mac, new.mac);
        greeted(&new, &sandbox);
    });
}
