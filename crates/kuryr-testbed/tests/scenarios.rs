//! The scenarios in the embedded world, one test each.

use kuryr_testbed::{
    dataplane::enter,
    scenarios::{Place, trials},
    world::EmbeddedConfig,
};
use libtest_mimic::Arguments;
use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::from_args();
    // First of all: only a process with one thread can enter a user namespace.
    let inside = enter()?;
    let config = EmbeddedConfig::new(inside.directory());
    Ok(libtest_mimic::run(&arguments, trials(&Place::Embedded(config))).exit_code())
}
