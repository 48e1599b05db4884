//! An embedded cloud and an embedded Kubernetes for demo, tests and benchmarks, and the scenario suite.

pub mod bench;
pub mod cloud;
pub mod contract;
pub mod dataplane;
pub mod demo;
mod interrupt;
pub mod kubernetes;
pub mod scenarios;
pub mod up;
pub mod world;
