//! One screen for people.

use super::{
    collect::Facts,
    judge::{Area, Check, State},
};
use std::io::Write;

const WIDTH: usize = 18;

/// Writes the checks by area, and how many do not work.
pub(crate) fn text(facts: &Facts, checks: &[Check], out: &mut dyn Write) -> anyhow::Result<()> {
    if let Ok(cluster) = &facts.cluster {
        writeln!(out, "Kuryr of cluster {cluster}")?;
    }
    for area in [Area::Kubernetes, Area::OpenStack, Area::Pods, Area::Services, Area::Policies] {
        let mut here = checks.iter().filter(|check| check.area == area).peekable();
        if here.peek().is_some() {
            writeln!(out, "\n{area:?}")?;
        }
        for Check { subject, state, detail, fix, .. } in here {
            let mark = match state {
                State::Ok => "✓",
                State::Note => "?",
                State::Wrong => "✗",
            };
            writeln!(out, "  {mark} {subject:<WIDTH$} {detail}")?;
            if !fix.is_empty() {
                writeln!(out, "    {:<WIDTH$} → {fix}", "")?;
            }
        }
    }
    let wrong = checks.iter().filter(|check| check.state == State::Wrong).count();
    match wrong {
        0 => writeln!(out, "\nAll that was looked at works.")?,
        1 => writeln!(out, "\n1 thing does not work.")?,
        wrong => writeln!(out, "\n{wrong} things do not work.")?,
    }
    Ok(())
}
