//! The contract with OpenStack, held against the embedded cloud, for each way in which it binds ports.

use kuryr_testbed::{
    cloud::HostKind,
    contract::{Place, trials},
};
use libtest_mimic::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let kinds = [HostKind::Ovs, HostKind::Tap, HostKind::Bridge];
    let trials = kinds.into_iter().flat_map(|kind| trials(&Place::Embedded(kind))).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
