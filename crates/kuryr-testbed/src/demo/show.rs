//! How the story is told: chapters, facts, tables and claims, for a terminal of 100 columns or a plain log.
//!
//! ```text
//! ── 4. Pods on both nodes ────────────────────────────────── 12.3 s
//!    A sentence that says what is about to be done.
//!
//!    • what was waited for                                    0.6 s
//!    a table, or facts
//!    ✓ a claim that was verified
//! ```
//!
//! Nothing is a claim that was not looked at: [`Show::claim`] ends the story with an error when it does not hold.

use anyhow::bail;
use std::{
    cell::Cell,
    io::{IsTerminal, Write, stdout},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Columns that are used.
const WIDTH: usize = 100;
/// Left margin of all but headings.
const MARGIN: &str = "   ";
/// What spins while something is waited for.
const SPINNER: [char; 8] = ['⣾', '⣽', '⣻', '⢿', '⡿', '⣟', '⣯', '⣷'];

#[derive(Clone, Copy)]
enum Style {
    Bold,
    Dim,
    Green,
    Red,
    Cyan,
}

impl Style {
    fn code(self) -> u8 {
        match self {
            Self::Bold => 1,
            Self::Dim => 2,
            Self::Red => 31,
            Self::Green => 32,
            Self::Cyan => 36,
        }
    }
}

/// The teller.
pub(super) struct Show {
    started: Instant,
    terminal: bool,
    colour: bool,
    chapters: Cell<usize>,
    claims: Cell<usize>,
}

impl Show {
    /// Tells on the standard output.
    pub(super) fn new() -> Self {
        let terminal = stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            started: Instant::now(),
            terminal,
            colour: terminal && !plain,
            chapters: Cell::new(0),
            claims: Cell::new(0),
        }
    }

    /// How many claims were verified so far.
    pub(super) fn claims(&self) -> usize {
        self.claims.get()
    }

    /// Since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The first line.
    pub(super) fn title(&self, title: &str, text: &str) {
        self.line("");
        self.line(&self.paint(Style::Bold, title));
        self.prose(text);
    }

    /// Begins a chapter: its title, and what is about to be done in it.
    pub(super) fn chapter(&self, title: &str, text: &str) {
        self.chapters.set(self.chapters.get() + 1);
        let head = format!("{}. {title}", self.chapters.get());
        let time = format!("{:.1} s", self.started.elapsed().as_secs_f64());
        let rule = "─".repeat(WIDTH.saturating_sub(5 + width(&head) + width(&time)));
        self.line("");
        self.line(&format!(
            "{} {} {} {}",
            self.paint(Style::Cyan, "──"),
            self.paint(Style::Bold, &head),
            self.paint(Style::Cyan, &rule),
            self.paint(Style::Dim, &time)
        ));
        self.prose(text);
        self.line("");
    }

    /// Sentences, filled.
    pub(super) fn prose(&self, text: &str) {
        for line in fill(text, WIDTH - MARGIN.len()) {
            self.line(&format!("{MARGIN}{line}"));
        }
    }

    /// Something by its name.
    pub(super) fn fact(&self, name: &str, text: &str) {
        let name = format!("{name:<19}");
        let mut lines = fill(text, WIDTH - MARGIN.len() - 20).into_iter();
        self.line(&format!("{MARGIN}{} {}", self.paint(Style::Dim, &name), lines.next().unwrap_or_default()));
        for line in lines {
            self.line(&format!("{MARGIN}{:19} {line}", ""));
        }
    }

    /// What a program printed.
    pub(super) fn quote(&self, command: &str, output: &str) {
        self.line(&format!("{MARGIN}{}", self.paint(Style::Bold, &format!("$ {command}"))));
        for line in output.trim_end().lines() {
            self.line(&format!("{MARGIN}{line}"));
        }
    }

    /// An empty line.
    pub(super) fn gap(&self) {
        self.line("");
    }

    /// Says that something holds, after it was looked at.
    ///
    /// # Errors
    /// It does not hold.
    pub(super) fn claim(&self, holds: bool, what: &str) -> anyhow::Result<()> {
        let (mark, style) = if holds { ("✓", Style::Green) } else { ("✗", Style::Red) };
        let mut lines = fill(what, WIDTH - MARGIN.len() - 2).into_iter();
        self.line(&format!("{MARGIN}{} {}", self.paint(style, mark), lines.next().unwrap_or_default()));
        for line in lines {
            self.line(&format!("{MARGIN}  {line}"));
        }
        if !holds {
            bail!("this was to be shown and is not so: {what}");
        }
        self.claims.set(self.claims.get() + 1);
        Ok(())
    }

    /// Aligned columns. A header that begins with `>` is of a column that is aligned right.
    pub(super) fn table(&self, headers: &[&str], rows: &[Vec<String>]) {
        let lines = table(headers, rows);
        for (number, line) in lines.iter().enumerate() {
            let line = if number == 0 { self.paint(Style::Dim, line) } else { line.clone() };
            self.line(&format!("{MARGIN}{line}"));
        }
    }

    /// Waits for work, on a terminal with a line that lives; then says how long it took.
    ///
    /// # Errors
    /// Those of the work.
    pub(super) async fn wait<T>(&self, what: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        self.watch(what, String::new, work).await
    }

    /// The same with something to watch while it lasts, such as a count.
    ///
    /// # Errors
    /// Those of the work.
    pub(super) async fn watch<T>(
        &self,
        what: &str,
        progress: impl Fn() -> String,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        let mut work = std::pin::pin!(work);
        let mut ticks = interval(Duration::from_millis(120));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut turn = 0;
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                _ = ticks.tick(), if self.terminal => {
                    turn += 1;
                    let spinner = SPINNER[turn % SPINNER.len()].to_string();
                    let text = format!("{} {what}  {}", self.paint(Style::Cyan, &spinner), progress());
                    self.put(&format!("\r\x1b[2K{MARGIN}{text}"));
                }
            }
        };
        if self.terminal {
            self.put("\r\x1b[2K");
        }
        if result.is_ok() {
            let time = seconds(started.elapsed());
            let space = WIDTH.saturating_sub(MARGIN.len() + 2 + width(what) + width(&time));
            self.line(&format!("{MARGIN}• {what}{:space$}{}", "", self.paint(Style::Dim, &time)));
        }
        result
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", style.code()) } else { text.to_owned() }
    }

    fn line(&self, text: &str) {
        self.put(&format!("{}\n", text.trim_end()));
    }

    /// That nobody reads on is no reason to stop: what is left to do includes cleaning up.
    #[expect(clippy::unused_self, reason = "nothing else may write")]
    fn put(&self, text: &str) {
        let mut out = stdout().lock();
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
    }
}

/// A time as people say it.
pub(super) fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.1} s"),
        seconds if seconds >= 0.01 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{:.1} ms", seconds * 1e3),
    }
}

/// A number of things, in words.
pub(super) fn many(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Words in lines of at most so many columns, where words allow it.
fn fill(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last().map_or(0, |line| width(line));
        if last > 0 && last + 1 + width(word) > columns {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// The lines of a table, its headers first.
pub(super) fn table(headers: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let right: Vec<bool> = headers.iter().map(|header| header.starts_with('>')).collect();
    let names = headers.iter().map(|header| header.trim_start_matches('>').to_owned()).collect();
    let all: Vec<Vec<String>> = std::iter::once(names).chain(rows.iter().cloned()).collect();
    let widest = |column: usize| all.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max();
    let widths: Vec<usize> = (0..headers.len()).map(|column| widest(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).zip(&right).map(|((cell, &wide), &right)| {
            let space = " ".repeat(wide.saturating_sub(width(cell)));
            if right { format!("{space}{cell}") } else { format!("{cell}{space}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "1 ms".to_owned()], vec!["long".to_owned(), "12 ms".to_owned()]];
        assert_eq!(table(&["POD", ">TIME"], &rows), ["POD    TIME", "a      1 ms", "long  12 ms"]);
    }

    #[test]
    fn words_stay_whole() {
        assert_eq!(fill("one two  three", 7), ["one two", "three"]);
        assert_eq!(fill("interminable", 3), ["interminable"]);
        assert_eq!(fill("", 3), [""]);
    }

    #[test]
    fn times_have_the_digits_that_matter() {
        let times = [1.26, 0.345, 0.0042].map(|time| seconds(Duration::from_secs_f64(time)));
        assert_eq!(times, ["1.3 s", "345 ms", "4.2 ms"]);
    }

    #[test]
    fn what_does_not_hold_ends_the_story() {
        let show = Show::new();
        assert!(show.claim(true, "one is one").is_ok());
        assert!(show.claim(false, "one is two").unwrap_err().to_string().contains("one is two"));
        assert_eq!(show.claims(), 1);
    }
}
