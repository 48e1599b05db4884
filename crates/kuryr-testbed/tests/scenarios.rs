//! The scenarios in the embedded world, one test each.

use kuryr_testbed::{
    dataplane::enter,
    scenarios::{Place, trials},
    world::EmbeddedConfig,
};
use libtest_mimic::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // First of all: only a process with one thread can enter a user namespace.
    let inside = match enter() {
        Ok(inside) => inside,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let config = EmbeddedConfig::new(inside.directory());
    libtest_mimic::run(&arguments, trials(&Place::Embedded(config))).exit_code()
}
