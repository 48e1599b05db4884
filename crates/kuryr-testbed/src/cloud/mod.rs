//! The embedded cloud: Keystone, Neutron and (later) Octavia on one HTTP port, strict as the real ones.
