//! An embedded cloud and an embedded Kubernetes for demo, tests and benchmarks, and the scenario suite.

pub mod cloud;
pub mod dataplane;
pub mod kubernetes;
pub mod scenarios;
pub mod world;
