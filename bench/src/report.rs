//! Medians, spreads, ratios and marks, as Markdown.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::rig::Listener;

/// One workload over a number of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The place of the workload in the report.
    pub workload: usize,
    pub connections: usize,
}

/// What was measured of one row and listener in one round.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub rate: f64,
    /// Milliseconds.
    pub p50: f64,
    /// Milliseconds.
    pub p99: f64,
    /// CPU microseconds a request.
    pub envoy: f64,
    /// CPU microseconds a request.
    pub processor: f64,
    /// Bytes.
    pub rss: u64,
}

/// All cells, by round.
#[derive(Debug, Default)]
pub struct Cells(BTreeMap<(Row, Listener), Vec<Cell>>);

/// How much of the floor's processor time ours may take.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    pub workload: &'static str,
    pub most: f64,
}

impl Cells {
    pub fn push(&mut self, row: Row, listener: Listener, cell: Cell) {
        self.0.entry((row, listener)).or_default().push(cell);
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.0.keys().map(|(row, _)| *row).collect();
        rows.dedup();
        rows
    }

    fn values(&self, row: Row, listener: Listener, value: impl Fn(&Cell) -> f64) -> Vec<f64> {
        self.0.get(&(row, listener)).into_iter().flatten().map(value).collect()
    }

    /// Milliseconds that a limit in Redis adds to the median of a row, round by round.
    pub fn added_by_quota(&self, row: Row) -> Spread {
        let with = self.values(row, Listener::Quota, |cell| cell.p50);
        let without = self.values(row, Listener::Ours, |cell| cell.p50);
        Spread::of(with.iter().zip(without).map(|(with, without)| with - without).collect())
    }

    /// Ours over `base`, round by round: what a noisy neighbour does in one round it does to both.
    fn ratio(&self, row: Row, base: Listener, value: impl Fn(&Cell) -> f64) -> Spread {
        let ours = self.values(row, Listener::Ours, &value);
        Spread::of(ours.iter().zip(self.values(row, base, &value)).map(|(ours, base)| ours / base).collect())
    }

    pub fn tables(&self, workloads: &[&str]) -> String {
        let mut text = String::from(
            "| workload | c | listener | requests/s | p50 ms | p99 ms | Envoy µs | processor µs | processor RSS MB |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for ((row, listener), cells) in &self.0 {
            let of = |value: fn(&Cell) -> f64| Spread::of(cells.iter().map(value).collect());
            let (rate, p50, p99) = (of(|c| c.rate), of(|c| c.p50), of(|c| c.p99));
            let processor = match listener {
                Listener::Direct => "–".to_owned(),
                _ => of(|c| c.processor).shown(0),
            };
            let rss = cells.last().map_or(0.0, |cell| cell.rss as f64 / 1e6);
            let rss = if rss > 0.0 { format!("{rss:.0}") } else { "–".to_owned() };
            line(
                &mut text,
                &[
                    workloads[row.workload].to_owned(),
                    row.connections.to_string(),
                    listener.name().to_owned(),
                    format!("{:.0}", rate.median),
                    format!("{:.2}", p50.median),
                    format!("{:.2}", p99.median),
                    of(|c| c.envoy).shown(0),
                    processor,
                    rss,
                ],
            );
        }
        text
    }

    pub fn ratios(&self, workloads: &[&str], marks: &[Mark]) -> String {
        let mut text = String::from(
            "| workload | c | processor CPU, ours/floor | Envoy + processor CPU, ours/floor | p50, ours/floor | p99, ours/floor | p50, ours/direct | mark |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for row in self.rows() {
            let processor = self.ratio(row, Listener::Floor, |cell| cell.processor);
            let workload = workloads[row.workload];
            let mark = marks.iter().find(|mark| mark.workload == workload);
            let mark = mark.map_or_else(String::new, |mark| verdict(processor.median, mark.most, 2));
            line(
                &mut text,
                &[
                    workload.to_owned(),
                    row.connections.to_string(),
                    processor.shown(2),
                    self.ratio(row, Listener::Floor, |cell| cell.envoy + cell.processor).shown(2),
                    format!("{:.2}", self.ratio(row, Listener::Floor, |cell| cell.p50).median),
                    format!("{:.2}", self.ratio(row, Listener::Floor, |cell| cell.p99).median),
                    format!("{:.2}", self.ratio(row, Listener::Direct, |cell| cell.p50).median),
                    mark,
                ],
            );
        }
        text
    }
}

/// Adds a row to a table.
pub fn line(text: &mut String, cells: &[String]) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

/// Pass or fail, with the mark.
pub fn verdict(value: f64, most: f64, digits: usize) -> String {
    let word = if value <= most { "pass" } else { "**FAIL**" };
    format!("{word} (≤ {most:.digits$})")
}

/// Pass or fail, with a mark that is to be reached.
pub fn reached(value: f64, least: f64) -> String {
    let word = if value >= least { "pass" } else { "**FAIL**" };
    format!("{word} (≥ {least:.0})")
}

/// The middle and the ends of some figures.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        Self { median: (at(last / 2) + at(last.div_ceil(2))) / 2.0, least: at(0), most: at(last) }
    }

    pub fn shown(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}–{:.digits$})", self.median, self.least, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_verdicts() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]).shown(0), "2 (1–3)");
        assert_eq!(Spread::of(vec![4.0, 1.0]).median, 2.5);
        assert!(Spread::of(Vec::new()).median.is_nan());
        assert_eq!(verdict(1.0, 1.6, 1), "pass (≤ 1.6)");
        assert!(verdict(f64::NAN, 1.6, 1).contains("FAIL"));
        assert_eq!(reached(3.1, 3.0), "pass (≥ 3)");
        assert!(reached(2.9, 3.0).contains("FAIL") && reached(f64::NAN, 3.0).contains("FAIL"));
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let mut cells = Cells::default();
        let row = Row { workload: 0, connections: 1 };
        let cell = |processor| Cell { rate: 1.0, p50: 1.0, p99: 1.0, envoy: 0.0, processor, rss: 0 };
        for (floor, ours) in [(10.0, 20.0), (100.0, 200.0), (1.0, 2.0)] {
            cells.push(row, Listener::Floor, cell(floor));
            cells.push(row, Listener::Ours, cell(ours));
        }
        let text = cells.ratios(&["small"], &[Mark { workload: "small", most: 1.6 }]);
        assert!(text.contains("2.00 (2.00–2.00)") && text.contains("FAIL"), "{text}");
    }
}
