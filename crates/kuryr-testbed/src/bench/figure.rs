//! One figure: what was measured, against which budget.

use serde::{Deserialize, Serialize};

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Unit {
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "MiB")]
    Mebibytes,
    #[serde(rename = "calls")]
    Calls,
    #[serde(rename = "%")]
    Percent,
}

impl Unit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::Mebibytes => "MiB",
            Self::Calls => "calls",
            Self::Percent => "%",
        }
    }
}

/// The most that a figure may be, or the least; all absent where the design sets no budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Budget {
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
    #[serde(default)]
    pub(super) least: Option<f64>,
}

impl Budget {
    /// Of many samples.
    pub(super) fn of(p50: f64, p99: f64) -> Self {
        Self { p50: Some(p50), p99: Some(p99), least: None }
    }

    /// Of the only sample, or of the worst of a few.
    pub(super) fn most(worst: f64) -> Self {
        Self { p99: Some(worst), ..Self::default() }
    }

    /// Of the only sample, or of the worst of a few, where more is better.
    pub(super) fn least(worst: f64) -> Self {
        Self { least: Some(worst), ..Self::default() }
    }
}

/// What came of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ok,
    Over,
    /// There is no budget.
    None,
}

impl Verdict {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Over => "OVER",
            Self::None => "",
        }
    }
}

/// Something measured.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    /// The group that measures it: the argument of the command that makes it again.
    pub(super) group: &'static str,
    /// For people.
    pub(super) what: String,
    pub(super) unit: Unit,
    pub(super) budget: Budget,
    /// In the order in which they were taken.
    pub(super) samples: Vec<f64>,
    /// Calls that were counted beside it.
    pub(super) calls: String,
    /// What the Python original needs for it, with its conditions.
    pub(super) original: &'static str,
    /// What went into it, and where the time goes.
    pub(super) note: String,
}

impl Figure {
    pub(super) fn new(group: &'static str, what: impl Into<String>, unit: Unit, samples: Vec<f64>) -> Self {
        Self {
            group,
            what: what.into(),
            unit,
            budget: Budget::default(),
            samples,
            calls: String::new(),
            original: "",
            note: String::new(),
        }
    }

    #[must_use]
    pub(super) fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    #[must_use]
    pub(super) fn calls(mut self, calls: impl Into<String>) -> Self {
        self.calls = calls.into();
        self
    }

    #[must_use]
    pub(super) fn original(mut self, original: &'static str) -> Self {
        self.original = original;
        self
    }

    #[must_use]
    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    pub(super) fn p50(&self) -> f64 {
        quantile(&self.samples, 0.5)
    }

    pub(super) fn p99(&self) -> f64 {
        quantile(&self.samples, 0.99)
    }

    pub(super) fn verdict(&self) -> Verdict {
        let Budget { p50, p99, least } = self.budget;
        let within = [
            p50.map(|limit| self.p50() <= limit),
            p99.map(|limit| self.p99() <= limit),
            least.map(|limit| quantile(&self.samples, 0.0) >= limit),
        ];
        let mut judged = within.into_iter().flatten().peekable();
        if judged.peek().is_none() {
            Verdict::None
        } else if judged.all(|within| within) {
            Verdict::Ok
        } else {
            Verdict::Over
        }
    }

    pub(super) fn command(&self) -> String {
        format!("kuryr-testbed bench {}", self.group)
    }
}

/// The smallest sample that at least `share` of all do not exceed: always one that was measured, never one in between.
fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples_by_nearest_rank() {
        let samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!((quantile(&samples, 0.5), quantile(&samples, 0.99)), (100.0, 198.0));
        assert_eq!((quantile(&[7.0], 0.5), quantile(&[7.0], 0.99)), (7.0, 7.0));
        assert_eq!((quantile(&[1.0, 2.0, 9.0], 0.5), quantile(&[1.0, 2.0, 9.0], 0.99)), (2.0, 9.0));
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn either_limit_breaks_a_budget_and_no_budget_is_no_verdict() {
        let figure = |samples: &[f64], budget| Figure::new("g", "w", Unit::Seconds, samples.to_vec()).budget(budget);
        assert_eq!(figure(&[1.0, 1.0, 5.0], Budget::of(2.0, 5.0)).verdict(), Verdict::Ok);
        assert_eq!(figure(&[1.0, 1.0, 5.1], Budget::of(2.0, 5.0)).verdict(), Verdict::Over);
        assert_eq!(figure(&[3.0, 3.0, 3.0], Budget::of(2.0, 5.0)).verdict(), Verdict::Over);
        assert_eq!(figure(&[3.0], Budget::most(2.0)).verdict(), Verdict::Over);
        assert_eq!(figure(&[3.0], Budget::default()).verdict(), Verdict::None);
        assert_eq!(figure(&[3.0, 2.0], Budget::least(2.0)).verdict(), Verdict::Ok);
        assert_eq!(figure(&[3.0, 1.9], Budget::least(2.0)).verdict(), Verdict::Over);
        assert_eq!(figure(&[], Budget::most(1.0)).verdict(), Verdict::Over, "nothing measured is not within a budget");
    }
}
