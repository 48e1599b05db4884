//! An embedded cloud and Kubernetes that stay up for a person to play with.

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
