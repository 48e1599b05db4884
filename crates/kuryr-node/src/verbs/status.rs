//! STATUS: would an ADD work now?

use crate::{
    cni::{CniError, Code},
    node::{Node, Plugs},
};

pub(super) async fn run<P: Plugs>(node: &Node<P>) -> Result<(), CniError> {
    if let Some(trouble) = node.data_plane_trouble().await {
        return Err(CniError::new(Code::LimitedConnectivity, trouble));
    }
    if !node.ports.synced() {
        let trouble = node.ports.trouble().unwrap_or_else(|| "they are being listed".to_owned());
        return Err(CniError::new(Code::NotAvailable, format!("the daemon cannot see KuryrPorts yet: {trouble}")));
    }
    if let Some(why) = node.full.why() {
        return Err(CniError::new(Code::NotAvailable, format!("node {} is full: {why}", node.name)));
    }
    Ok(())
}
