//! From values to places on an axis.

/// How values are spread along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from 0.
    Linear,
    /// By their logarithm; for values above 0.
    Log,
    /// By how close they come to 100: 90, 99, 99.9 are as far from each other.
    Nines,
}

/// An axis laid over the values it has to show.
#[derive(Clone, Debug)]
pub struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

/// Ticks there should be at most on a linear axis.
const TICKS_MAX: f64 = 6.0;

impl Axis {
    /// An axis that holds all `values` that the scale can show.
    pub fn over(scale: Scale, values: impl Iterator<Item = f64>) -> Axis {
        let shown = values.filter(|value| is_shown(scale, *value));
        let (least, most) = shown.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), v| {
            (least.min(v), most.max(v))
        });
        let (least, most) = if least > most {
            (1.0, 1.0)
        } else {
            (least, most)
        };
        let (low, high, ticks) = match scale {
            Scale::Linear => linear(least.min(0.0), most),
            Scale::Log => log(least, most),
            Scale::Nines => nines(most),
        };
        Axis {
            scale,
            low: place(scale, low),
            high: place(scale, high),
            ticks,
        }
    }

    /// Values to be named along the axis.
    pub fn ticks(&self) -> &[f64] {
        &self.ticks
    }

    /// Where a value lies: 0 at the axis's begin, 1 at its end. `None` if it cannot be shown.
    pub fn at(&self, value: f64) -> Option<f64> {
        let span = self.high - self.low;
        is_shown(self.scale, value).then(|| (place(self.scale, value) - self.low) / span)
    }
}

fn is_shown(scale: Scale, value: f64) -> bool {
    value.is_finite()
        && match scale {
            Scale::Linear => true,
            Scale::Log => value > 0.0,
            Scale::Nines => (0.0..100.0).contains(&value),
        }
}

fn place(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        Scale::Log => value.log10(),
        Scale::Nines => -(1.0 - value / 100.0).log10(),
    }
}

fn linear(least: f64, most: f64) -> (f64, f64, Vec<f64>) {
    let span = if most > least { most - least } else { 1.0 };
    let rough = span / TICKS_MAX;
    let ten = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let factor = steps.into_iter().find(|step| step * ten >= rough);
    let step = factor.unwrap_or(10.0) * ten;
    let first = (least / step).floor();
    let last = ((least + span) / step - 1e-9).ceil();
    // At most a few more than TICKS_MAX.
    let ticks = (0..=(last - first) as usize).map(|n| (first + n as f64) * step);
    (first * step, last * step, ticks.collect())
}

fn log(least: f64, most: f64) -> (f64, f64, Vec<f64>) {
    let (first, last) = (least.log10().floor() as i32, most.log10().ceil() as i32);
    let last = last.max(first + 1);
    let within: &[f64] = if last - first <= 2 {
        &[1.0, 2.0, 5.0]
    } else {
        &[1.0]
    };
    let mut ticks = Vec::new();
    for decade in first..=last {
        let each = within.iter().map(|factor| factor * 10f64.powi(decade));
        ticks.extend(each.filter(|tick| *tick <= 10f64.powi(last) * 1.000_001));
    }
    (10f64.powi(first), 10f64.powi(last), ticks)
}

fn nines(most: f64) -> (f64, f64, Vec<f64>) {
    let last = place(Scale::Nines, most).ceil().clamp(1.0, 9.0) as i32;
    let mut ticks = vec![0.0, 50.0];
    ticks.extend((1..=last).map(|nines| 100.0 - 100.0 * 10f64.powi(-nines)));
    let high = 100.0 - 100.0 * 10f64.powi(-last);
    (0.0, high, ticks)
}

/// A value with three digits that mean something, without an exponent.
pub fn show(value: f64) -> String {
    let (value, unit) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, " G"),
        v if v >= 1e6 => (value / 1e6, " M"),
        v if v >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 || v == 0.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{unit}")
}

/// A percentile with as many digits as it has nines.
pub fn show_percent(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_axis_begins_at_nothing_and_has_round_ticks() {
        let axis = Axis::over(Scale::Linear, [130.0, 470.0].into_iter());
        assert_eq!(axis.ticks(), [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]);
        assert_eq!((axis.at(0.0), axis.at(250.0)), (Some(0.0), Some(0.5)));
        assert_eq!(axis.at(f64::NAN), None);
    }

    #[test]
    fn a_log_axis_ends_at_powers_of_ten_and_shows_nothing_at_or_below_0() {
        let axis = Axis::over(Scale::Log, [20.0, 9000.0, 0.0, -1.0].into_iter());
        assert_eq!(axis.ticks(), [10.0, 100.0, 1000.0, 10000.0]);
        assert_eq!((axis.at(10.0), axis.at(0.0)), (Some(0.0), None));
        assert!((axis.at(100.0).unwrap() - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn each_nine_is_as_far_from_the_next() {
        let axis = Axis::over(Scale::Nines, [0.0, 99.95].into_iter());
        assert_eq!(axis.ticks().len(), 6);
        let place = |value| axis.at(value).unwrap();
        let (first, second) = (place(99.0) - place(90.0), place(99.9) - place(99.0));
        assert!((first - second).abs() < 1e-9);
        assert_eq!(axis.at(100.0), None);
    }

    #[test]
    fn an_axis_over_nothing_is_still_one() {
        for scale in [Scale::Linear, Scale::Log, Scale::Nines] {
            for values in [&[][..], &[f64::NAN], &[0.0], &[5.0]] {
                let axis = Axis::over(scale, values.iter().copied());
                assert!(axis.ticks().len() > 1, "{scale:?} {values:?}");
                assert!(axis.ticks().iter().all(|tick| axis.at(*tick).is_some()));
            }
        }
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.0123, "0.012"),
            (1.5, "1.5"),
            (99.96, "100"),
            (1234.0, "1234"),
            (12345.0, "12.3 k"),
            (1_240_000.0, "1.24 M"),
        ] {
            assert_eq!(show(value), text);
        }
        assert_eq!(
            (show_percent(99.99).as_str(), show_percent(0.0).as_str()),
            ("99.99", "0")
        );
    }
}
