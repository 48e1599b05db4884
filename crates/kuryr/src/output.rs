//! How the commands that look at something print what they found.

use clap::ValueEnum;
use serde::Serialize;
use std::io::Write;

/// For whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    // For people. (Not a doc comment: clap would spread the help over twice as many lines for it.)
    #[default]
    Text,
    // For programs.
    Json,
}

impl Output {
    /// Prints what was found, for people by `text`: both are told the same.
    pub(crate) fn print<T: Serialize + ?Sized>(
        self,
        found: &T,
        text: impl FnOnce(&T, &mut dyn Write) -> anyhow::Result<()>,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        match self {
            Self::Text => text(found, out)?,
            Self::Json => {
                serde_json::to_writer_pretty(&mut *out, found)?;
                writeln!(out)?;
            }
        }
        Ok(())
    }
}
