//! The embedded data plane: simulated nodes as network namespaces, security groups as nftables.
