//! A pod and its `KuryrPort`, as tests need them.

use crate::pod::Pod;
use kuryr_model::{
    KuryrPort, KuryrPortSpec, ObjectKey, Plug, PodUid, PortId, Vif,
    vif::{PlugDriver, VifAddress},
};

/// A pod that is bound to `node0`.
pub(crate) fn pod(key: &ObjectKey, uid: &PodUid) -> Pod {
    Pod {
        key: key.clone(),
        uid: uid.clone(),
        node: Some("node0".to_owned()),
        host_network: false,
        completed: false,
        deleting: false,
    }
}

/// What says that a pod of `node0` has this port.
pub(crate) fn kuryr_port(key: &ObjectKey, uid: &PodUid, port_id: PortId) -> KuryrPort {
    let vif = Vif {
        interface: "eth0".to_owned(),
        port_id,
        network_id: "aaaaaaaa-bbbb-cccc-dddd-000000000001".parse().unwrap(),
        mac: "fa:16:3e:00:00:01".parse().unwrap(),
        mtu: 1442,
        addresses: vec![VifAddress { ip: "10.0.0.5".parse().unwrap(), prefix_length: 24, gateway: None }],
        routes: vec![],
        plug: Plug::own(PlugDriver::Tap, None),
    };
    let spec = KuryrPortSpec { pod_uid: uid.clone(), node_name: "node0".to_owned(), vifs: vec![vif] };
    KuryrPort::new(&key.name, spec)
}
