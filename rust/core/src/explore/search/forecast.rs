//! How many states a breadth-first search is still going to find.
//!
//! The sizes of its levels rise and fall about like a bell: the ratio of a level to the one before falls by about the same factor
//! from level to level. A guess, for the size of tables only: nothing that a search tells depends on it.

/// Levels between those whose ratios are compared: sizes of neighbours go up and down.
const STRIDE: usize = 2;
/// Ratios fall by this at least, as a search that is still widening says little about its end.
const SLOWEST_FALL: f64 = 0.985;

/// The sizes of the latest levels.
#[derive(Default, Debug)]
pub(super) struct Forecast {
    /// The newest first.
    latest: [f64; 2 * STRIDE + 1],
}

impl Forecast {
    /// Notes the size of a level, and tells how many states the levels after it have together; `None` before there are enough
    /// levels to tell.
    #[expect(clippy::cast_precision_loss, reason = "a guess")]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    pub(super) fn after(&mut self, level: usize) -> Option<usize> {
        self.latest.rotate_right(1);
        self.latest[0] = level as f64;
        let [newest, .., oldest] = self.latest;
        if oldest == 0.0 {
            return None;
        }
        let middle = self.latest[STRIDE];
        let (earlier, later) = (middle / oldest, newest / middle);
        let stride = STRIDE as f64;
        let fall = (later / earlier).powf(1.0 / (stride * stride)).min(SLOWEST_FALL);
        // The ratio in the middle of the later levels; on to the newest.
        let mut ratio = later.powf(1.0 / stride) * fall.powf((stride - 1.0) / 2.0);
        let (mut size, mut sum) = (newest, 0.0);
        while size >= 1.0 {
            ratio *= fall;
            size *= ratio;
            sum += size;
        }
        Some(sum as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_is_foreseen_from_its_rise_on() {
        // As many states as there are ways to choose some of 60 things.
        let mut levels = vec![1_u64];
        for chosen in 1..=60 {
            levels.push(levels[chosen - 1] * (61 - chosen as u64) / chosen as u64);
        }
        let levels: Vec<usize> = levels.iter().map(|level| usize::try_from(level >> 30).unwrap()).collect();
        let mut forecast = Forecast::default();
        for (at, &level) in levels.iter().enumerate() {
            let Some(foreseen) = forecast.after(level) else { continue };
            let left: usize = levels[at + 1..].iter().sum();
            if (24..45).contains(&at) {
                assert!(foreseen.abs_diff(left) * 8 <= left, "level {at}: {foreseen} foreseen, {left} came");
            }
        }
    }

    #[test]
    fn few_levels_say_nothing_and_growth_without_end_is_much() {
        let mut forecast = Forecast::default();
        assert_eq!([1, 2, 4, 8].map(|level| forecast.after(level)), [None; 4]);
        assert!(forecast.after(16).is_some_and(|foreseen| foreseen > 1_000_000));
        assert_eq!(forecast.after(0), Some(0));
    }
}
