//! The scenarios in the embedded world, one test each.

use kuryr_testbed::scenarios::{at_a_time, trials_apart};
use libtest_mimic::Arguments;
use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert_with(at_a_time);
    libtest_mimic::run(&arguments, trials_apart(Path::new(env!("CARGO_BIN_EXE_kuryr-testbed")))).exit_code()
}
