//! How long to wait before a request is tried again, and when to give up.
//!
//! It counts, and looks at no clock: what the pauses take, and for a request that stalled what it waited. The time that
//! failures themselves take is not counted; they come soon or are stalls.

use std::time::Duration;

use super::Retry;
use super::error::Recovery;

/// The pauses between tries, and when they are enough.
#[derive(Debug)]
pub(crate) struct Pause {
    retry: Retry,
    next: Duration,
    spent: Duration,
    /// How many failures there were.
    pub tries: u32,
}

impl Pause {
    pub(crate) fn new(retry: Retry) -> Self {
        Self { retry, next: retry.first, spent: Duration::ZERO, tries: 0 }
    }

    /// Begins anew: something new came.
    pub(crate) fn restart(&mut self) {
        *self = Self::new(self.retry);
    }

    /// Counts a failure; returns how long to wait before the next try, or that it was tried enough.
    ///
    /// `asked` is what the server wants: as long as that, not sooner and not later.
    pub(crate) fn after(&mut self, recovery: Recovery, asked: Option<Duration>) -> Option<Duration> {
        self.tries += 1;
        let patience = match recovery {
            Recovery::Never => return None,
            Recovery::Unreachable => self.retry.patience_unreachable,
            Recovery::Broken => self.retry.patience_broken,
            Recovery::Stalled => {
                self.spent += self.retry.stall;
                (self.retry.stall * 2).min(self.retry.patience)
            }
            Recovery::Outage => self.retry.patience,
        };
        let wait = asked.map_or(self.next, |asked| asked.max(self.retry.first));
        if self.spent + wait > patience {
            return None;
        }
        self.spent += wait;
        self.next = (self.next * 2).min(self.retry.longest);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(recovery: Recovery, asked: Option<u64>) -> Vec<u128> {
        let mut pause = Pause::new(Retry::default());
        std::iter::from_fn(|| pause.after(recovery, asked.map(Duration::from_secs)).map(|d| d.as_millis())).collect()
    }

    #[test]
    fn an_outage_of_a_minute_is_outlived_and_nothing_else_takes_half_of_it() {
        let outage = pauses(Recovery::Outage, None);
        assert_eq!(&outage[..7], [250, 500, 1000, 2000, 4000, 8000, 8000]);
        // The last try comes later than a minute after the first.
        assert!((60_001..80_000).contains(&outage.iter().sum::<u128>()), "{outage:?}");
        let stalled = Retry::default().stall.as_millis();
        for (recovery, each) in [(Recovery::Unreachable, 0), (Recovery::Broken, 0), (Recovery::Stalled, stalled)] {
            let all = pauses(recovery, None);
            assert!(!all.is_empty() && all.iter().sum::<u128>() + each * (all.len() as u128 + 1) < 30_000, "{recovery:?}: {all:?}");
        }
        assert_eq!(pauses(Recovery::Never, None), [0; 0]);
    }

    #[test]
    fn a_server_is_left_alone_as_long_as_it_asks_or_given_up_when_that_is_too_long() {
        assert_eq!(pauses(Recovery::Outage, Some(30)), [30_000, 30_000]);
        assert_eq!(pauses(Recovery::Outage, Some(3600)), [0; 0]);
        assert_eq!(pauses(Recovery::Outage, Some(0))[..2], [250, 250]);
    }
}
