//! What is counted.

use crate::clock::Millis;

#[derive(Default)]
pub(crate) struct Report {
    hits: usize,
    /// How long each pod waited.
    waits: Vec<Millis>,
    last: Millis,
    held: u128,
    most: usize,
    pub(crate) requests: usize,
}

impl Report {
    pub(crate) const HEADER: &'static str = "| rule | hits | wait: mean | p99 | longest | spare ports: mean | most | requests a pod |\n|---|---|---|---|---|---|---|---|";

    /// A pod got its port.
    pub(crate) fn served(&mut self, hit: bool, wait: Millis) {
        self.hits += usize::from(hit);
        self.waits.push(wait);
    }

    /// Until now so many ports were held.
    pub(crate) fn pass(&mut self, now: Millis, held: usize) {
        self.held += u128::from(now - self.last) * held as u128;
        self.last = now;
        self.most = self.most.max(held);
    }

    #[expect(clippy::cast_precision_loss)]
    pub(crate) fn row(&self, name: &str) -> String {
        let mut waits = self.waits.clone();
        waits.sort_unstable();
        let pods = waits.len().max(1);
        let at =
            |thousandths: usize| waits.get(waits.len().saturating_sub(1) * thousandths / 1000).copied().unwrap_or(0);
        let mean = waits.iter().sum::<Millis>() as f64 / pods as f64;
        format!(
            "| {name} | {:.1} % | {:.2} s | {:.1} s | {:.1} s | {:.0} | {} | {:.2} |",
            self.hits as f64 * 100.0 / pods as f64,
            mean / 1000.0,
            at(990) as f64 / 1000.0,
            at(1000) as f64 / 1000.0,
            self.held as f64 / self.last.max(1) as f64,
            self.most,
            self.requests as f64 / pods as f64,
        )
    }
}
