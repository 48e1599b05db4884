//! The node daemon: CNI server, plug drivers, netlink, OVSDB.

pub mod netlink;
pub mod netns;
pub mod ovsdb;
pub mod plug;
