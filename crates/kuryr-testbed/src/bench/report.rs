//! The figures as a table for people and as JSON for machines.

use super::{
    figure::{Figure, Unit, Verdict},
    machine::Machine,
};
use anyhow::Context;
use serde_json::json;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// All that one run measured.
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) figures: Vec<Figure>,
}

const TITLES: [&str; 8] = ["what", "budget", "p50", "p99", "samples", "calls", "Python original", ""];

impl Report {
    /// Figures that are over their budgets.
    pub(super) fn over(&self) -> usize {
        self.figures.iter().filter(|figure| figure.verdict() == Verdict::Over).count()
    }

    /// Writes the table.
    pub(super) fn print(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let mut rows = vec![TITLES.map(str::to_owned)];
        rows.extend(self.figures.iter().map(cells));
        let widths: Vec<usize> = (0..TITLES.len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        writeln!(out, "\n{}\n", self.machine)?;
        for (number, row) in rows.iter().enumerate() {
            let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(out, "| {} |", line.join(" | "))?;
            if number == 0 {
                let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                writeln!(out, "|-{}-|", rule.join("-|-"))?;
            }
        }
        writeln!(out)?;
        for figure in self.figures.iter().filter(|figure| !figure.note.is_empty()) {
            writeln!(out, "- {}: {} (`{}`)", figure.what, figure.note, figure.command())?;
        }
        match self.over() {
            0 => writeln!(out, "\nAll budgets hold.")?,
            over => writeln!(out, "\n{over} of {} figures are OVER their budgets.", self.figures.len())?,
        }
        Ok(())
    }

    /// Writes the JSON into a folder; the file.
    pub(super) fn save(&self, folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let path = folder.join(format!("{name}.json"));
        let figures: Vec<_> = self.figures.iter().map(Figure::to_json).collect();
        let text = format!("{:#}\n", json!({ "machine": self.machine.to_json(), "figures": figures }));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

fn cells(figure: &Figure) -> [String; 8] {
    let value = |value: f64| number(figure.unit, value);
    let budget = match (figure.budget.p50, figure.budget.p99) {
        (Some(p50), Some(p99)) => format!("{} / {}", value(p50), value(p99)),
        (None, Some(most)) | (Some(most), None) => value(most),
        (None, None) => String::new(),
    };
    [
        figure.what.clone(),
        budget,
        value(figure.p50()),
        value(figure.p99()),
        figure.samples.len().to_string(),
        figure.calls.clone(),
        figure.original.to_owned(),
        figure.verdict().word().to_owned(),
    ]
}

fn number(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Calls | Unit::Percent => format!("{value:.0}"),
        _ if value >= 100.0 => format!("{value:.0} {}", unit.name()),
        _ if value >= 10.0 => format!("{value:.1} {}", unit.name()),
        _ => format!("{value:.2} {}", unit.name()),
    }
}
