//! What a soak's samples say about the server. Pure.
//!
//! The time after settling is cut into thirds; the last is held against the first. Medians are
//! compared, so that one odd sample decides nothing.

use crate::curves::Moment;
use crate::results::Vital;

/// Resident memory may differ so much between the first and the last third, per cent.
const DRIFT_MAX_PERCENT: f64 = 5.0;
/// Neighbouring parts of the run whose p99.9 differ by this factor make a step.
const STEP: f64 = 1.5;
/// Parts the run is cut into to look for steps.
const PARTS: usize = 10;
/// Fewest pieces of a part.
const PIECES_MIN: usize = 3;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What fails the soak.
    pub failures: Vec<String>,
    /// What is worth a look.
    pub remarks: Vec<String>,
}

/// Judges what came after `settled` seconds.
pub fn judge(vitals: &[Vital], series: &[Moment], settled: f64) -> Judgement {
    let mut found = Judgement::default();
    let late: Vec<&Vital> = vitals.iter().filter(|v| v.at_seconds >= settled).collect();
    let third = late.len() / 3;
    if third == 0 {
        found
            .failures
            .push("the soak was too short to be judged".to_owned());
        return found;
    }
    let (first, last) = (&late[..third], &late[late.len() - third..]);
    let rss = |vitals: &[&Vital]| median(vitals.iter().map(|v| v.rss_kib as f64));
    let (before, after) = (rss(first), rss(last));
    let drift = (after / before.max(1.0) - 1.0) * 100.0;
    if drift.abs() > DRIFT_MAX_PERCENT {
        found.failures.push(format!(
            "resident memory went from {before:.0} KiB to {after:.0} KiB ({drift:+.1} %)"
        ));
    }
    let most = |vitals: &[&Vital], value: fn(&Vital) -> u64| {
        vitals.iter().map(|v| value(v)).max().unwrap_or(0)
    };
    let (before, after) = (most(first, |v| v.files), most(last, |v| v.files));
    if after > before {
        found
            .failures
            .push(format!("open files grew from {before} to {after}"));
    }
    let (before, after) = (most(first, |v| v.threads), most(last, |v| v.threads));
    if after > before {
        found
            .remarks
            .push(format!("threads grew from {before} to {after}"));
    }
    found.remarks.extend(steps(series, settled));
    found
}

/// Where p99.9 changed its level, and stayed there for a part of the run.
fn steps(series: &[Moment], settled: f64) -> Vec<String> {
    let late: Vec<&Moment> = series.iter().filter(|m| m.at_seconds >= settled).collect();
    let part = (late.len() / PARTS).max(PIECES_MIN);
    let levels: Vec<(f64, f64)> = late
        .chunks_exact(part)
        .map(|part| (part[0].at_seconds, median(part.iter().map(|m| m.p999_us))))
        .collect();
    let is_step = |pair: &&[(f64, f64)]| {
        let (before, after) = (pair[0].1.max(1e-9), pair[1].1.max(1e-9));
        after / before > STEP || before / after > STEP
    };
    let words = |pair: &[(f64, f64)]| {
        let ((_, before), (at, after)) = (pair[0], pair[1]);
        format!("p99.9 went from {before:.0} µs to {after:.0} µs at {at:.0} s")
    };
    levels.windows(2).filter(is_step).map(words).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    crate::figures::Spread::of(values).map_or(0.0, |spread| spread.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vitals(count: u32, value: impl Fn(u32) -> (u64, u64)) -> Vec<Vital> {
        let vital = |second: u32| {
            let (rss_kib, files) = value(second);
            Vital {
                at_seconds: f64::from(second),
                rss_kib,
                files,
                threads: 4,
            }
        };
        (0..count).map(vital).collect()
    }

    fn series(count: u32, p999_us: impl Fn(u32) -> f64) -> Vec<Moment> {
        let moment = |second: u32| Moment {
            at_seconds: f64::from(second),
            seconds: 1.0,
            requests: 1,
            iops: 1.0,
            mb_per_second: 0.0,
            p50_us: 1.0,
            p99_us: 1.0,
            p999_us: p999_us(second),
            max_us: 1.0,
            server_cpu_percent: None,
            server_cpu_us_per_request: None,
            client_cpu_percent: 1.0,
        };
        (0..count).map(moment).collect()
    }

    #[test]
    fn a_steady_server_passes() {
        let vitals = vitals(100, |second| (100_000 + u64::from(second % 7) * 100, 30));
        let series = series(100, |second| 100.0 + f64::from(second % 5) * 8.0);
        assert_eq!(judge(&vitals, &series, 10.0), Judgement::default());
    }

    #[test]
    fn memory_that_grows_or_shrinks_fails() {
        for slope in [200i64, -200] {
            let rss = |second: u32| (100_000 + i64::from(second) * slope) as u64;
            let found = judge(&vitals(100, |s| (rss(s), 30)), &[], 10.0);
            assert_eq!(found.failures.len(), 1, "{found:?}");
            assert!(found.failures[0].starts_with("resident memory went"));
        }
        // What happens before it settled is not judged.
        let early = vitals(100, |second| (if second < 10 { 1000 } else { 100_000 }, 30));
        assert_eq!(judge(&early, &[], 10.0), Judgement::default());
    }

    #[test]
    fn one_file_that_stays_open_fails() {
        let found = judge(
            &vitals(60, |second| (1000, 30 + u64::from(second > 50))),
            &[],
            0.0,
        );
        assert_eq!(found.failures, ["open files grew from 30 to 31"]);
    }

    #[test]
    fn a_step_of_the_tail_is_told_and_a_spike_is_not() {
        let vitals = vitals(100, |_| (1000, 30));
        let stepped = series(100, |second| if second < 60 { 100.0 } else { 300.0 });
        let found = judge(&vitals, &stepped, 0.0);
        assert_eq!(found.remarks, ["p99.9 went from 100 µs to 300 µs at 60 s"]);
        assert!(found.failures.is_empty());
        let spiked = series(100, |second| if second == 60 { 9000.0 } else { 100.0 });
        assert_eq!(judge(&vitals, &spiked, 0.0), Judgement::default());
    }

    #[test]
    fn too_little_is_no_judgement() {
        assert_eq!(judge(&vitals(2, |_| (1, 1)), &[], 0.0).failures.len(), 1);
        assert_eq!(judge(&[], &[], 0.0).failures.len(), 1);
    }
}
