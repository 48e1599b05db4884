//! The demonstration: what Kuryr does, shown to a person in about a minute.

use std::process::ExitCode;

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {}

/// Runs it. Called first thing in `main`, while the process has one thread.
///
/// # Errors
/// Something does not work.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
