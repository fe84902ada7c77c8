//! PURE. Whether a stream is waited for, or looked at by the clock.
//!
//! Who is waited for wakes us by each write: that is at once, and dear where line follows on line.
//! By the clock lines gather for less than a millisecond, and no write wakes anybody. A stream
//! that is quiet, or that fills its FIFO faster than the clock is, is waited for.

/// So many looks in a row that each find little, soon after the one before: then by the clock.
const HASTY_LOOKS: i32 = 8;
/// So many for one that was too fast for the clock.
const TRIED_LOOKS: i32 = 1_024;
/// From one look by the clock to the next, the shorter the more is found.
const PAUSE_US: (u32, u32) = (64, 512);
/// Found by one look: hardly anything, and about what a FIFO holds.
const LITTLE_BYTES: usize = 12 << 10;
const MUCH_BYTES: usize = 48 << 10;

/// Of one stream.
#[derive(Debug, Default)]
pub struct Pace {
    hasty: i32,
    seen_us: u64,
    pub by_clock: bool,
}

/// What a stream is looked at for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There may be more now.
    Look,
    /// The next tick of the clock.
    Tick,
    /// More now; then it is waited for.
    Write,
}

/// The clock that all of them share.
#[derive(Debug)]
pub struct Beat {
    pub pause_us: u32,
    /// Most that was found by one look since the last tick.
    most: usize,
}

impl Default for Beat {
    fn default() -> Self {
        Self { pause_us: PAUSE_US.0, most: 0 }
    }
}

impl Beat {
    /// The time to the next tick, by what was found since the last.
    pub fn pause(&mut self) -> u32 {
        let pause = match std::mem::take(&mut self.most) {
            MUCH_BYTES.. => self.pause_us / 2,
            0..LITTLE_BYTES => self.pause_us * 2,
            _ => self.pause_us,
        };
        self.pause_us = pause.clamp(PAUSE_US.0, PAUSE_US.1);
        self.pause_us
    }
}

impl Pace {
    /// A look at this time has found so many bytes.
    pub fn found(&mut self, bytes: usize, now_us: u64, beat: &mut Beat) -> Next {
        let is_much = bytes >= MUCH_BYTES;
        let is_hasty = now_us.abs_diff(self.seen_us) < u64::from(PAUSE_US.0) && !is_much;
        self.seen_us = now_us;
        if self.by_clock {
            beat.most = beat.most.max(bytes);
            if is_much && beat.pause_us == PAUSE_US.0 {
                self.hasty = HASTY_LOOKS - TRIED_LOOKS;
                return Next::Write;
            }
            return if is_much { Next::Look } else { Next::Tick };
        }
        self.hasty = if is_hasty { self.hasty + 1 } else { self.hasty.min(0) };
        if self.hasty < HASTY_LOOKS {
            return Next::Look;
        }
        self.hasty = 0;
        Next::Tick
    }
}
