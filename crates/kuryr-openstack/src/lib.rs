//! A thin typed client for the Keystone, Neutron and Octavia calls that Kuryr makes.
