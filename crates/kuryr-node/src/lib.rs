//! The node daemon: CNI server, plug drivers, netlink, OVSDB.
