//! The figures as a table for people and as JSON for machines.

use super::{
    figure::{Budget, Figure, Unit, Verdict},
    machine::Machine,
};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// All that one run measured, as it is written to a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    figures: Vec<Row>,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    what: String,
    unit: Unit,
    budget: Budget,
    /// None without samples.
    p50: Option<f64>,
    p99: Option<f64>,
    verdict: String,
    calls: String,
    python_original: String,
    note: String,
    /// What measures it again.
    command: String,
    samples: Vec<f64>,
}

impl From<&Figure> for Row {
    fn from(figure: &Figure) -> Self {
        let there = |value: f64| (!value.is_nan()).then_some(value);
        Self {
            what: figure.what.clone(),
            unit: figure.unit,
            budget: figure.budget,
            p50: there(figure.p50()),
            p99: there(figure.p99()),
            verdict: figure.verdict().word().to_owned(),
            calls: figure.calls.clone(),
            python_original: figure.original.to_owned(),
            note: figure.note.clone(),
            command: figure.command(),
            samples: figure.samples.clone(),
        }
    }
}

const TITLES: [&str; 8] = ["what", "budget", "p50", "p99", "samples", "calls", "Python original", ""];

impl Report {
    pub(super) fn new(machine: Machine, figures: &[Figure]) -> Self {
        Self { machine, figures: figures.iter().map(Row::from).collect() }
    }

    /// One that was saved.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no run of the benchmark", file.display()))
    }

    /// Figures that are over their budgets.
    pub(super) fn over(&self) -> usize {
        self.figures.iter().filter(|row| row.verdict == Verdict::Over.word()).count()
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
        for row in self.figures.iter().filter(|row| !row.note.is_empty()) {
            writeln!(out, "- {}: {} (`{}`)", row.what, row.note, row.command)?;
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
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Puts the table into a document, between [`BEGIN`] and [`END`], in the place of what is there.
    pub(super) fn put_into(&self, file: &Path) -> anyhow::Result<()> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut table = Vec::new();
        self.print(&mut table)?;
        let renewed = between(&text, &String::from_utf8(table)?)
            .with_context(|| format!("{} has no line {BEGIN} with a line {END} after it", file.display()))?;
        fs::write(file, renewed).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Where the table of a document begins and ends: comments in Markdown.
const BEGIN: &str = "<!-- a run: make bench-readme -->";
const END: &str = "<!-- end of the run -->";

fn between(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{table}\n{END}{after}"))
}

fn cells(row: &Row) -> [String; 8] {
    let value = |value: f64| number(row.unit, value);
    let budget = match (row.budget.p50, row.budget.p99, row.budget.least) {
        (Some(p50), Some(p99), _) => format!("{} / {}", value(p50), value(p99)),
        (None, Some(most), _) | (Some(most), None, _) => value(most),
        (None, None, Some(least)) => format!("at least {}", value(least)),
        (None, None, None) => String::new(),
    };
    let measured = |sample: Option<f64>| sample.map(value).unwrap_or_default();
    [
        row.what.clone(),
        budget,
        measured(row.p50),
        measured(row.p99),
        row.samples.len().to_string(),
        row.calls.clone(),
        row.python_original.clone(),
        row.verdict.clone(),
    ]
}

fn number(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Calls => format!("{value:.0}"),
        Unit::Percent => format!("{value:.0} %"),
        _ if value >= 100.0 => format!("{value:.0} {}", unit.name()),
        _ if value >= 10.0 => format!("{value:.1} {}", unit.name()),
        _ => format!("{value:.2} {}", unit.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let quick = Figure::new("pods", "quick", Unit::Milliseconds, vec![1.0, 2.0]).budget(Budget::of(3.0, 4.0));
        let rate = Figure::new("pools", "rate", Unit::Percent, vec![80.0]).budget(Budget::least(90.0)).note("why");
        let nothing = Figure::new("pools", "nothing", Unit::Calls, Vec::new());
        Report::new(Machine::look(), &[quick, rate, nothing])
    }

    fn printed(report: &Report) -> String {
        let mut out = Vec::new();
        report.print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_saved_run_is_printed_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let report = report();
        let file = report.save(folder.path(), "run").unwrap();
        let read = Report::read(&file).unwrap();
        assert_eq!(read, report);
        let text = printed(&read);
        assert_eq!(text, printed(&report));
        assert!(
            text.contains("at least 90 %") && text.contains("OVER") && text.contains("3.00 ms / 4.00 ms"),
            "{text}"
        );
        assert!(text.contains("- rate: why (`kuryr-testbed bench pools`)"), "{text}");
    }

    #[test]
    fn a_table_takes_the_place_of_the_one_before_and_of_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("README.md");
        fs::write(&file, format!("before\n{BEGIN}\nold\n{END}\nafter\n")).unwrap();
        report().put_into(&file).unwrap();
        let once = fs::read_to_string(&file).unwrap();
        assert!(
            once.starts_with(&format!("before\n{BEGIN}\n")) && once.ends_with(&format!("{END}\nafter\n")),
            "{once}"
        );
        assert!(once.contains("| quick") && !once.contains("old"), "{once}");
        report().put_into(&file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap().matches("| quick").count(), 1);
        fs::write(&file, "nowhere to put it").unwrap();
        assert!(report().put_into(&file).unwrap_err().to_string().contains("has no line"));
    }
}
